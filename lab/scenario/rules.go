package scenario

import (
	"fmt"
	"net/netip"
	"slices"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// Rules are those of a box of a plan, whose interfaces have these names and whose
// drops go to an NFLOG group.
func Rules(plan *topo.Plan, b topo.Box, behaviour middlebox.Behaviour, wan, lan string, logGroup uint16) (*middlebox.Ruleset, error) {
	denied := map[string][]netip.Addr{}
	for _, d := range behaviour.Deny {
		if h, ok := plan.Host(d.Host); ok {
			denied[d.Host] = h.Addrs
		}
	}
	most := 0
	for _, network := range inside(b) {
		most = max(most, len(members(plan, network)))
	}
	return middlebox.Rules(middlebox.Box{
		Name: b.Name, Behaviour: behaviour,
		WAN: wan, LAN: lan,
		WANAddrs: b.WAN, LANPrefix: b.LAN, Routed: b.Routed(), Inside: most + spare,
		Denied: denied, LogGroup: logGroup,
	})
}

// spare is how many addresses of each network inside a box reckons with beside
// those of the plan: of measuring points, and of boxes that get others while
// the lab runs.
const spare = 16

// inside are the networks whose addresses reach a box as they are.
func inside(b topo.Box) []netip.Prefix { return append([]netip.Prefix{b.LAN}, b.Routed()...) }

// members are the addresses in a network that a plan gives to hosts and to boxes
// in it.
func members(plan *topo.Plan, network netip.Prefix) (addrs []netip.Addr) {
	for _, h := range plan.Hosts {
		addrs = append(addrs, h.Addrs...)
	}
	for _, b := range plan.Boxes {
		addrs = append(addrs, b.WAN...)
	}
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !network.Contains(a) })
}

// capacity checks that a box can do what it does now for all that is behind it.
func (c *checker) capacity(path []string, name string) {
	behaviour, ok := c.now[name]
	if !ok || c.plan == nil {
		return
	}
	box, _ := c.plan.Box(name)
	if behaviour.Ports == middlebox.BlockPorts && !c.blocks(path, box, behaviour) {
		return
	}
	rules, err := Rules(c.plan, box, behaviour, "wan", "lan", 0) // the names and the group take no room
	if err != nil {
		c.at(path, "%v", err)
		return
	}
	if n := rules.Answers(); n > middlebox.MaxAnswers {
		c.at(path, "rules to which the kernel's answers take some %d bytes; expected at most %d, which is what a socket holds by default: fewer external addresses, hosts behind the box, or hosts that it denies", n, middlebox.MaxAnswers)
	}
}

// blocks checks that each address inside has a block of ports, and says so.
func (c *checker) blocks(path []string, box topo.Box, behaviour middlebox.Behaviour) bool {
	size := behaviour.PortBlock
	if size == 0 {
		size = middlebox.DefaultPortBlock
	}
	blocks, networks := middlebox.Subscribers(size), inside(box)
	for i, network := range networks {
		here := fmt.Sprintf("%d", blocks)
		share := (blocks - i + len(networks) - 1) / len(networks) // they take turns
		if len(networks) > 1 {
			here = fmt.Sprintf("%d, or %d for each of the %d networks that come to the box", blocks, share, len(networks))
		}
		had, moved := len(members(c.plan, network)), c.moved(network)
		if had > share {
			c.at(path, "%d addresses in %v need a block of %d ports each, and there are %s; expected fewer hosts there, or a smaller port_block", had, network, size, here)
			return false
		}
		if moved > 0 && (moved > spare || had+moved > share) {
			c.at(path, "%d addresses in %v, and %d that boxes there get anew, need a block of %d ports each, and there are %s; expected fewer", had, network, moved, size, here)
			return false
		}
	}
	return true
}

// moved is how many addresses of a network the boxes in it get by steps that
// readdress them.
func (c *checker) moved(network netip.Prefix) (n int) {
	for i := range c.s.Steps {
		for _, v := range c.s.Steps[i].Interventions() {
			if v.Readdress == nil {
				continue
			}
			if b, ok := c.plan.Box(v.Readdress.Box); ok && network.Contains(b.WAN[0]) {
				n += len(b.WAN)
			}
		}
	}
	return n
}
