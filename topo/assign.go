package topo

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Where addresses come from. 198.18.0.0/15 is for benchmarks of network
// devices (RFC 2544 appendix C.2.2, RFC 6890), so it can't be mistaken for
// anybody's network; 10.0.0.0/8 is private (RFC 1918).
var (
	publicPrefix   = netip.MustParsePrefix("198.18.0.0/16")
	publicGateway  = netip.MustParseAddr("198.18.0.1")
	publicFirst    = netip.MustParseAddr("198.18.1.1") // first that is given out
	firewallPrefix = netip.MustParsePrefix("198.19.0.0/16")
	privatePrefix  = netip.MustParsePrefix("10.0.0.0/8")
)

// maxPorts is how many interfaces one Linux bridge can have (BR_MAX_PORTS in
// the kernel's net/bridge/br_private.h, less the number 0).
const maxPorts = 1023

// usablePublic says whether a host on the internet may have this address.
func usablePublic(a netip.Addr) bool {
	return publicPrefix.Contains(a) && a != publicPrefix.Addr() && a != publicGateway && a != last(publicPrefix)
}

// assign decides ports, addresses and routes. The description has passed
// checkStructure; what is left to find is a network that is too full.
func assign(d Description) (*Plan, []Problem) {
	a := &assigner{
		plan:      &Plan{Internet: Internet{Prefix: publicPrefix, Addr: publicGateway}},
		boxes:     map[string]int{},
		firewalls: newPool(firewallPrefix),
		private:   newPool(privatePrefix),
	}
	a.order(d)
	for _, h := range d.Hosts {
		a.plan.Hosts = append(a.plan.Hosts, Host{Name: h.Name, Behind: h.Behind, Addrs: slices.Clone(h.IPs), Link: h.Link})
	}
	a.members("")
	for i := range a.plan.Boxes {
		a.lan(&a.plan.Boxes[i])
		a.members(a.plan.Boxes[i].Name)
	}
	if len(a.problems) > 0 {
		return nil, a.problems
	}
	a.routes()
	return a.plan, nil
}

type assigner struct {
	plan      *Plan
	boxes     map[string]int // index of a box in plan.Boxes
	addresses []int          // external addresses wanted, for each of plan.Boxes
	firewalls pool           // LANs of firewalls with nothing translating outward
	private   pool           // all other LANs
	problems  []Problem
}

// order puts the boxes into the plan, outermost first.
func (a *assigner) order(d Description) {
	behind := map[string]string{}
	for _, b := range d.Boxes {
		behind[b.Name] = b.Behind
	}
	depth := func(name string) (n int) {
		for ; name != ""; name = behind[name] {
			n++
		}
		return n
	}
	sorted := slices.Clone(d.Boxes)
	slices.SortStableFunc(sorted, func(x, y BoxDescription) int {
		return cmp.Compare(depth(x.Name), depth(y.Name))
	})
	for i, b := range sorted {
		a.boxes[b.Name] = i
		a.addresses = append(a.addresses, max(1, b.Addresses))
		a.plan.Boxes = append(a.plan.Boxes, Box{Name: b.Name, Behind: b.Behind, Translates: b.Translates, Link: b.Link})
	}
}

// lan gives a box the network inside it: the smallest that holds the boxes and
// hosts behind it.
func (a *assigner) lan(b *Box) {
	wanted := 0
	for i, inner := range a.plan.Boxes {
		if inner.Behind == b.Name {
			wanted += a.addresses[i]
		}
	}
	for _, h := range a.plan.Hosts {
		if h.Behind == b.Name {
			wanted++
		}
	}
	from := &a.firewalls
	if b.Translates || a.translatedOutside(*b) {
		from = &a.private
	}
	for _, bits := range []int{24, 22, 20, 16} {
		if wanted > 1<<(32-bits)-3 { // without network, broadcast and the box
			continue
		}
		prefix, ok := from.take(bits)
		if !ok {
			a.problem(b.Name, fmt.Sprintf("no /%d is left of %v for its LAN; expected fewer or smaller LANs", bits, from.prefix))
			return
		}
		b.LAN, b.LANAddr = prefix, prefix.Addr().Next()
		return
	}
	a.problem(b.Name, fmt.Sprintf("%d addresses are wanted on its LAN; expected at most %d", wanted, 1<<16-3))
}

// translatedOutside says whether a box further out translates.
func (a *assigner) translatedOutside(b Box) bool {
	for b.Behind != "" {
		b = a.plan.Boxes[a.boxes[b.Behind]]
		if b.Translates {
			return true
		}
	}
	return false
}

// members gives the boxes and hosts directly behind a box, or on the internet
// if outside is "", their port, gateway and addresses.
func (a *assigner) members(outside string) {
	prefix, gateway, port, next := publicPrefix, publicGateway, "p", publicFirst
	if outside != "" {
		b := a.plan.Boxes[a.boxes[outside]]
		if !b.LAN.IsValid() {
			return // its LAN is a problem already
		}
		prefix, gateway, port, next = b.LAN, b.LANAddr, "lan", b.LANAddr.Next()
	}
	given := map[netip.Addr]bool{}
	for _, h := range a.plan.Hosts {
		for _, ip := range h.Addrs {
			given[ip] = true
		}
	}
	full := false
	// take returns some addresses that follow each other, since a NAT's pool is
	// a range.
	take := func(n int) []netip.Addr {
		var run []netip.Addr
		for len(run) < n {
			if !prefix.Contains(next) || next == last(prefix) {
				full = true
				return nil
			}
			if given[next] || outside == "" && endsIn0or255(next) {
				run = nil
			} else {
				run = append(run, next)
			}
			next = next.Next()
		}
		return run
	}
	// On the internet nobody is anybody's neighbour but the router's, as in the
	// real one; see neighbours.
	bits := prefix.Bits()
	if outside == "" {
		bits = 32
	}
	ports := 0
	for i := range a.plan.Boxes {
		b := &a.plan.Boxes[i]
		if b.Behind != outside {
			continue
		}
		ports++
		b.Port, b.Gateway, b.WANBits = fmt.Sprint(port, ports), gateway, bits
		b.WAN = take(a.addresses[i])
	}
	for i := range a.plan.Hosts {
		h := &a.plan.Hosts[i]
		if h.Behind != outside {
			continue
		}
		ports++
		h.Port, h.Gateway, h.Bits = fmt.Sprint(port, ports), gateway, bits
		if len(h.Addrs) == 0 {
			h.Addrs = take(1)
		}
	}
	if full {
		a.problem(outside, fmt.Sprintf("no address is left of %v; expected fewer hosts, boxes or external addresses", prefix))
	}
	if ports > maxPorts {
		a.problem(outside, fmt.Sprintf("%d hosts and boxes are attached to it directly; expected at most %d, the ports of a bridge", ports, maxPorts))
	}
}

// problem records that a box, or the internet if its name is "", is too full.
func (a *assigner) problem(box, message string) {
	if box == "" {
		a.problems = append(a.problems, Problem{Path: []string{"hosts"}, Message: "on the internet, " + message})
		return
	}
	a.problems = append(a.problems, Problem{Path: []string{"middleboxes", box}, Message: message})
}

// routes tells the routers outward of each firewall where its LAN is, as far
// out as its addresses are valid: up to the nearest box that translates, or
// the internet.
func (a *assigner) routes() {
	for _, firewall := range a.plan.Boxes {
		inner := firewall
		for !inner.Translates {
			route := Route{To: firewall.LAN, Via: inner.WAN[0]}
			if inner.Behind == "" {
				a.plan.Internet.Routes = append(a.plan.Internet.Routes, route)
				break
			}
			outer := &a.plan.Boxes[a.boxes[inner.Behind]]
			outer.Routes = append(outer.Routes, route)
			inner = *outer
		}
	}
}

// pool hands out networks of different sizes, upward.
type pool struct {
	prefix netip.Prefix
	next   uint64 // first address that is still free
}

// newPool makes a pool of a prefix without its first /24, so that no LAN looks
// like the prefix itself.
func newPool(prefix netip.Prefix) pool {
	return pool{prefix: prefix, next: uint64(number(prefix.Addr())) + 1<<8}
}

// take returns the next free network of that prefix length.
func (p *pool) take(bits int) (netip.Prefix, bool) {
	size := uint64(1) << (32 - bits)
	start := (p.next + size - 1) / size * size
	if start+size-1 > uint64(number(last(p.prefix))) {
		return netip.Prefix{}, false
	}
	p.next = start + size
	return netip.PrefixFrom(address(uint32(start)), bits), true
}

// last returns the last address of a prefix, its broadcast address.
func last(p netip.Prefix) netip.Addr {
	return address(number(p.Addr()) | (1<<(32-p.Bits()) - 1))
}

// endsIn0or255 marks addresses that careless software takes for a network or
// a broadcast address, whatever the prefix length.
func endsIn0or255(a netip.Addr) bool {
	end := a.As4()[3]
	return end == 0 || end == 255
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
