package topo

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxName is the length of the longest name of a host or box, in bytes.
const maxName = 32

// maxAddresses bounds the external addresses of one box: those of a /24
// without its network, its broadcast and its gateway.
const maxAddresses = 253

// Check returns everything that is wrong with a description, in the order of
// the file: boxes, hosts, then what concerns the whole. Addresses are only
// counted once the rest is right.
func Check(d Description) []Problem {
	if problems := checkStructure(d); len(problems) > 0 {
		return problems
	}
	_, problems := assign(d)
	return problems
}

// checker gathers problems.
type checker struct {
	boxes    map[string]bool // names of boxes
	hosts    map[string]bool // names of hosts
	known    []string        // names of boxes in file order, for messages
	problems []Problem
}

func (c *checker) add(message string, path ...string) {
	c.problems = append(c.problems, Problem{Path: path, Message: message})
}

// checkStructure finds all that can be wrong before addresses are decided.
func checkStructure(d Description) []Problem {
	c := &checker{boxes: map[string]bool{}, hosts: map[string]bool{}}
	for _, b := range d.Boxes {
		c.boxes[b.Name] = true
		c.known = append(c.known, b.Name)
	}
	for _, h := range d.Hosts {
		c.hosts[h.Name] = true
	}
	taken := map[string]string{InternetName: "the internet's own name"}
	for _, b := range d.Boxes {
		c.name("middleboxes", b.Name, "a middlebox", taken)
		c.behind("middleboxes", b.Name, b.Behind)
		if b.Addresses < 0 || b.Addresses > maxAddresses {
			c.add(fmt.Sprintf("%d external addresses; expected 1 to %d", b.Addresses, maxAddresses), "middleboxes", b.Name, "addresses")
		}
		c.link("middleboxes", b.Name, b.Link)
	}
	for _, h := range d.Hosts {
		c.name("hosts", h.Name, "a host", taken)
		c.behind("hosts", h.Name, h.Behind)
		c.link("hosts", h.Name, h.Link)
	}
	c.addresses(d.Hosts)
	c.cycles(d.Boxes)
	return c.problems
}

// name checks the form of a name and that nothing else has it. The map taken
// holds what has each name so far.
func (c *checker) name(section, name, kind string, taken map[string]string) {
	if !validName(name) {
		c.add(fmt.Sprintf("name %q; expected 1 to %d characters of a-z, 0-9 and -", name, maxName), section, name)
	}
	if owner, ok := taken[name]; ok {
		c.add(fmt.Sprintf("name %q is already %s; expected a name of its own", name, owner), section, name)
		return
	}
	taken[name] = kind
}

func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// behind checks that what something is behind is a box.
func (c *checker) behind(section, name, behind string) {
	if behind == "" || c.boxes[behind] {
		return
	}
	what := fmt.Sprintf("no middlebox is named %q", behind)
	if c.hosts[behind] {
		what = fmt.Sprintf("%q is a host, not a middlebox", behind)
	}
	expected := "expected no \"behind\", since the topology has no middlebox"
	if len(c.known) > 0 {
		expected = "expected one of " + strings.Join(c.known, ", ")
	}
	c.add(what+"; "+expected, section, name, "behind")
}

// link checks the values of both directions.
func (c *checker) link(section, name string, link Link) {
	for _, dir := range []struct {
		name  string
		shape Shape
	}{{"up", link.Up}, {"down", link.Down}} {
		s := dir.shape
		if s.Delay < 0 || s.Delay > maxDelay {
			c.add(fmt.Sprintf("%s: delay %v; expected 0 to %v", dir.name, s.Delay, maxDelay), section, name, "link")
		}
		if s.Jitter < 0 || s.Jitter > s.Delay {
			c.add(fmt.Sprintf("%s: jitter %v; expected at most the delay, %v, since no packet arrives before it is sent", dir.name, s.Jitter, s.Delay), section, name, "link")
		}
		if !(s.Loss >= 0 && s.Loss <= 1) { // also refuses NaN
			c.add(fmt.Sprintf("%s: loss %v; expected 0 to 1 (100%%)", dir.name, s.Loss), section, name, "link")
		}
		if s.Rate != 0 && (s.Rate < minRate || s.Rate > maxRate) {
			c.add(fmt.Sprintf("%s: rate %d bit/s; expected %d to %d", dir.name, s.Rate, uint64(minRate), uint64(maxRate)), section, name, "link")
		}
	}
}

// addresses checks the addresses that hosts were given.
func (c *checker) addresses(hosts []HostDescription) {
	owners := map[netip.Addr]string{}
	for _, h := range hosts {
		for i, ip := range h.IPs {
			path := []string{"hosts", h.Name, "ip"}
			if len(h.IPs) > 1 {
				path = append(path, fmt.Sprint(i))
			}
			if h.Behind != "" {
				c.add(fmt.Sprintf("%v given to a host behind %q; expected no address there, since the plan gives hosts behind a middlebox theirs", ip, h.Behind), path...)
				continue
			}
			if !usablePublic(ip) {
				c.add(fmt.Sprintf("address %v; expected one of %v other than its first, its last and the gateway %v", ip, publicPrefix, publicGateway), path...)
				continue
			}
			if owner, ok := owners[ip]; ok {
				c.add(fmt.Sprintf("address %v is already host %q's; expected an address of its own", ip, owner), path...)
				continue
			}
			owners[ip] = h.Name
		}
	}
}

// cycles names each circle of boxes that are behind one another, once.
func (c *checker) cycles(boxes []BoxDescription) {
	behind := map[string]string{}
	for _, b := range boxes {
		behind[b.Name] = b.Behind
	}
	done := map[string]bool{} // boxes known to be in a reported circle or in none
	for _, b := range boxes {
		var trail []string
		name := b.Name
		for name != "" && !done[name] && !slices.Contains(trail, name) {
			trail = append(trail, name)
			name = behind[name]
		}
		if at := slices.Index(trail, name); at >= 0 {
			circle := append(slices.Clone(trail[at:]), name)
			c.add("is behind itself: "+strings.Join(circle, " -> ")+"; expected a way out to the internet", "middleboxes", name, "behind")
		}
		for _, t := range trail {
			done[t] = true
		}
	}
}
