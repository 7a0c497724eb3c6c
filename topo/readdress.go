package topo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Readdress gives a box other external addresses, as a provider does when it
// hands out a new lease. The old ones are gone at once; routes and neighbours
// outside follow. It returns the plan as it is then; the one given stays what
// it was. Rules that name the old addresses are no business of this package.
func (n *Network) Readdress(p *Plan, name string, to []netip.Addr) (*Plan, error) {
	fail := func(err error) (*Plan, error) { return nil, fmt.Errorf("readdress %s: %w", name, err) }
	i := slices.IndexFunc(p.Boxes, func(b Box) bool { return b.Name == name })
	if i < 0 {
		return fail(errors.New("no such box"))
	}
	box := p.Boxes[i]
	outside, prefix := InternetName, p.Internet.Prefix
	if outer, ok := p.Box(box.Behind); ok {
		outside, prefix = outer.Name, outer.LAN
	}
	switch {
	case len(to) != len(box.WAN):
		return fail(fmt.Errorf("%d addresses; expected %d, as many as it has", len(to), len(box.WAN)))
	case slices.ContainsFunc(to, func(a netip.Addr) bool { return !prefix.Contains(a) }):
		return fail(fmt.Errorf("addresses %v; expected ones of %v", to, prefix))
	case slices.ContainsFunc(to, p.uses):
		return fail(fmt.Errorf("addresses %v; expected ones that nobody has", to))
	}
	after := *p
	after.Boxes = slices.Clone(p.Boxes)
	after.Boxes[i].WAN = to
	moved := func(routes []Route) []Route {
		routes = slices.Clone(routes)
		for k := range routes {
			if routes[k].Via == box.WAN[0] {
				routes[k].Via = to[0]
			}
		}
		return routes
	}

	var mac net.HardwareAddr
	err := inside(n.Namespace(name), func(r *rtnl) error {
		wan, err := net.InterfaceByName(wanInterface)
		if err != nil {
			return err
		}
		mac = wan.HardwareAddr
		// The last first: with the first address of a prefix go all others of it.
		for _, old := range slices.Backward(box.WAN) {
			r.removeAddress(wanInterface, uplink, netip.PrefixFrom(old, box.WANBits))
		}
		for _, a := range to {
			r.addAddress(wanInterface, uplink, netip.PrefixFrom(a, box.WANBits))
		}
		// The default route went with the addresses, and what was known of the gateway.
		r.addRoute(Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: box.Gateway}, uplink)
		r.addNeighbour(box.Gateway, hardwareAddress(insideEnd, box.Gateway), uplink)
		return r.flush()
	})
	if err != nil {
		return fail(err)
	}
	routes := &after.Internet.Routes
	if k := slices.IndexFunc(after.Boxes, func(b Box) bool { return b.Name == box.Behind }); k >= 0 {
		routes = &after.Boxes[k].Routes
	}
	before := *routes
	*routes = moved(before)
	err = inside(n.Namespace(outside), func(r *rtnl) error {
		for k := range to {
			r.removeNeighbour(box.WAN[k], bridge)
			r.addNeighbour(to[k], mac, bridge)
		}
		for k, route := range *routes {
			if route != before[k] {
				r.removeRoute(before[k], bridge)
				r.addRoute(route, bridge)
			}
		}
		return r.flush()
	})
	if err != nil {
		return fail(err)
	}
	// Neighbours on a LAN may know the old addresses, and the new ones as those of
	// a box that has had them before.
	var neighbours []string
	for _, b := range p.directlyBehind(box.Behind) {
		if b.Name != name {
			neighbours = append(neighbours, b.Name)
		}
	}
	for _, h := range p.Hosts {
		if h.Behind == box.Behind && h.Behind != "" {
			neighbours = append(neighbours, h.Name)
		}
	}
	for _, neighbour := range neighbours {
		if err := forget(n.Namespace(neighbour), uplink, slices.Concat(box.WAN, to)); err != nil {
			return fail(err)
		}
	}
	return &after, nil
}

// uses says whether a host, a box or the internet has an address.
func (p *Plan) uses(a netip.Addr) bool {
	return a == p.Internet.Addr ||
		slices.ContainsFunc(p.Hosts, func(h Host) bool { return slices.Contains(h.Addrs, a) }) ||
		slices.ContainsFunc(p.Boxes, func(b Box) bool { return b.LANAddr == a || slices.Contains(b.WAN, a) })
}

// removeAddress queues the removal of an IPv4 address of an interface.
func (s *rtnl) removeAddress(name string, index int, addr netip.Prefix) {
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Index, msg.Prefixlen = uint32(index), uint8(addr.Bits())
	s.add(fmt.Sprintf("remove address %v from %s", addr, name), unix.RTM_DELADDR, 0, msg,
		nl.NewRtAttr(unix.IFA_LOCAL, addr.Addr().AsSlice()))
}

// removeNeighbour queues forgetting a neighbour.
func (s *rtnl) removeNeighbour(addr netip.Addr, index int) {
	s.add(fmt.Sprintf("remove neighbour %v", addr), unix.RTM_DELNEIGH, 0,
		&neighbour{unix.NdMsg{Family: unix.AF_INET, Ifindex: int32(index)}}, nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
}

// removeRoute queues the removal of an IPv4 route.
func (s *rtnl) removeRoute(r Route, index int) {
	msg := nl.NewRtDelMsg()
	msg.Family, msg.Dst_len = unix.AF_INET, uint8(r.To.Bits())
	s.add(fmt.Sprintf("remove route to %v through %v", r.To, r.Via), unix.RTM_DELROUTE, 0, msg,
		nl.NewRtAttr(unix.RTA_DST, r.To.Addr().AsSlice()),
		nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
}
