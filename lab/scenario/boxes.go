package scenario

import (
	"fmt"
	"slices"
	"strconv"

	"gauntlet/middlebox"
)

// change checks what a box is told to become, and what becomes of it: a box
// that translates may go on doing so.
func (c *checker) change(path []string, change BoxChange) {
	box, _ := c.s.Topology.Middleboxes.Get(change.Box)
	next, ok := c.behaviour(path, change.Preset, change.Overrides, externals(box))
	before, known := c.now[change.Box]
	if !ok || !known {
		return
	}
	becomes := before.ChangedTo(next)
	if becomes.Translates() != next.Translates() {
		errs := becomes.Validate()
		for _, err := range errs {
			c.at(path, "%s goes on translating, and then: %v", change.Box, err)
		}
		if len(errs) > 0 {
			delete(c.now, change.Box)
			return
		}
	}
	denied := c.undeniable()
	c.now[change.Box] = becomes
	c.denials(path, change.Box, change.Preset, change.Deny)
	c.capacity(path, change.Box)
	for _, other := range c.undeniable() {
		if other.box != change.Box && !slices.Contains(denied, other) {
			c.at(path, "%s denies a host: %s", other.box, other.reason)
		}
	}
}

// denials checks that a box can keep the hosts out of reach that it denies.
func (c *checker) denials(path []string, box, preset string, deny []string) {
	own, _ := middlebox.Preset(preset)
	for _, d := range own.Deny {
		if reason := c.unseen(box, d.Host); reason != "" {
			c.at(under(path, "preset"), "preset %s denies a host: %s", preset, reason)
		}
	}
	for i, text := range deny {
		if d, err := middlebox.ParseDeny(text); err == nil {
			if reason := c.unseen(box, d.Host); reason != "" {
				c.at(under(path, "deny", strconv.Itoa(i)), "%s", reason)
			}
		}
	}
}

// undeniable is what boxes deny now and don't see.
func (c *checker) undeniable() (all []unseen) {
	for _, name := range c.s.Topology.Middleboxes.Names() {
		for _, d := range c.now[name].Deny {
			if reason := c.unseen(name, d.Host); reason != "" {
				all = append(all, unseen{name, reason})
			}
		}
	}
	return all
}

// unseen is a box that doesn't see the packets of a host that it denies, and why.
type unseen struct{ box, reason string }

// unseen says why a box can't know the packets to and from a host by the host's
// addresses, "" if it can.
func (c *checker) unseen(box, host string) string {
	h, known := c.s.Topology.Hosts.Get(host)
	b, _ := c.s.Topology.Middleboxes.Get(box)
	if !known || box == "" {
		return ""
	}
	chain, outside := c.chain(h.Behind), c.chain(b.Behind)
	if slices.Contains(chain, box) {
		return fmt.Sprintf("host %q is behind %s itself; expected one outside, which those inside can't reach then", host, box)
	}
	for _, name := range chain {
		if c.now[name].Translates() && !slices.Contains(outside, name) {
			return fmt.Sprintf("host %q is behind %s, whose address is all that %s sees of it; expected one that no box translates, or both behind %s", host, name, box, name)
		}
	}
	return ""
}

// chain returns the boxes from the one that something is behind outward.
func (c *checker) chain(behind string) (chain []string) {
	for behind != "" && !slices.Contains(chain, behind) { // a circle is reported elsewhere
		chain = append(chain, behind)
		box, _ := c.s.Topology.Middleboxes.Get(behind)
		behind = box.Behind
	}
	return chain
}
