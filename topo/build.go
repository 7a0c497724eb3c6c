package topo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"golang.org/x/sync/errgroup"

	"gauntlet/topo/ns"
)

// Names of interfaces, and their indexes, which are set when an interface is
// made so that nothing ever needs to be looked up.
const (
	hostInterface  = "eth0"
	wanInterface   = "wan"
	lanInterface   = "lan"
	internetBridge = "br0"

	loopback   = 1  // the kernel's own choice in every namespace
	uplink     = 2  // eth0 of a host, wan of a box
	bridge     = 3  // lan of a box, br0 of the internet
	portOffset = 10 // the first port of a bridge
)

// Build makes what a plan says: namespaces, interfaces that are up, addresses,
// routes, links. When it returns, packets pass between all neighbours, and
// through boxes as far as plain forwarding goes. Nothing is added to the
// namespace of the caller. Build needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the
// user namespace of the process.
//
// If anything fails or ctx ends, all that was made is given up again.
func Build(ctx context.Context, plan *Plan) (*Network, error) { return BuildIn(ctx, plan, nil) }

// BuildIn is Build with some namespaces, by the name of their host or box, that
// are there already, such as those of containers: they are filled instead of
// made. Each may hold a loopback interface and nothing else. They are the
// network's from now on, also if BuildIn fails.
func BuildIn(ctx context.Context, plan *Plan, given map[string]*ns.Handle) (*Network, error) {
	b, err := newBuilder(plan)
	if err == nil {
		err = b.give(given)
	}
	if err != nil {
		for _, h := range given {
			err = errors.Join(err, h.Close())
		}
		return nil, fmt.Errorf("build network: %w", err)
	}
	for _, step := range []struct {
		space func(*space) error
		links func(*links) error
	}{
		{b.open, (*links).open},
		{b.connect, (*links).connect},
		{b.configure, (*links).configure},
		{b.finish, (*links).finish},
	} {
		if err = b.each(ctx, step.space, step.links); err != nil {
			break
		}
	}
	n := &Network{spaces: map[string]*ns.Handle{}, taps: map[string][]string{}, links: b.links}
	for _, s := range b.spaces {
		if s.netlink != nil {
			err = errors.Join(err, s.netlink.close())
		}
		if s.handle != nil {
			n.spaces[s.name] = s.handle
		}
		n.taps[s.name] = s.taps
		n.missing = append(n.missing, s.missing...)
	}
	if b.links != nil && b.links.rtnl != nil {
		err = errors.Join(err, b.links.rtnl.close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build network: %w", err), n.Close())
	}
	return n, nil
}

// space is one namespace in the making.
type space struct {
	name    string
	router  bool
	bridge  string       // name of the bridge, "" for a host
	inside  netip.Prefix // address of the bridge
	uplink  string       // name of the interface outward, "" for the internet
	outside []netip.Prefix
	gateway netip.Addr
	routes  []Route
	members []*space // attached to the bridge
	port    string   // the interface it is attached to, outside
	link    Link
	taps    []string

	impaired *impaired // its link, if that does more than bound the rate

	handle  *ns.Handle
	netlink *rtnl
	missing []string
}

// builder holds all namespaces: the internet, the boxes, the hosts.
type builder struct {
	spaces []*space
	links  *links
}

// inner is the inner end of the link of a host or box.
func (s *space) inner() end {
	return end{s.uplink, uplink, hardwareAddress(insideEnd, s.outside[0].Addr())}
}

func newBuilder(plan *Plan) (*builder, error) {
	internet := &space{
		name: InternetName, router: true, bridge: internetBridge, taps: []string{internetBridge},
		inside: netip.PrefixFrom(plan.Internet.Addr, plan.Internet.Prefix.Bits()),
		routes: plan.Internet.Routes,
	}
	b := &builder{spaces: []*space{internet}}
	routers := map[string]*space{"": internet}
	attach := func(s *space, behind string) error {
		outer, ok := routers[behind]
		if !ok {
			return fmt.Errorf("%s is behind %q, which is no box before it in the plan", s.name, behind)
		}
		outer.members = append(outer.members, s)
		b.spaces = append(b.spaces, s)
		return nil
	}
	for _, x := range plan.Boxes {
		s := &space{
			name: x.Name, router: true, bridge: lanInterface, uplink: wanInterface,
			taps:    []string{wanInterface, lanInterface},
			inside:  netip.PrefixFrom(x.LANAddr, x.LAN.Bits()),
			outside: prefixes(x.WAN, x.WANBits), gateway: x.Gateway, routes: x.Routes, port: x.Port, link: x.Link,
		}
		if err := attach(s, x.Behind); err != nil {
			return nil, err
		}
		routers[x.Name] = s
	}
	for _, x := range plan.Hosts {
		s := &space{
			name: x.Name, uplink: hostInterface, taps: []string{hostInterface},
			outside: prefixes(x.Addrs, x.Bits), gateway: x.Gateway, port: x.Port, link: x.Link,
		}
		if err := attach(s, x.Behind); err != nil {
			return nil, err
		}
	}
	for _, s := range b.spaces {
		if s.uplink != "" && len(s.outside) == 0 {
			return nil, fmt.Errorf("%s has no address", s.name)
		}
		if s.link.impairs() {
			if b.links == nil {
				b.links = &links{seed: plan.Seed}
			}
			b.links.add(s)
		}
	}
	return b, nil
}

func prefixes(addrs []netip.Addr, bits int) []netip.Prefix {
	list := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		list[i] = netip.PrefixFrom(a, bits)
	}
	return list
}

// each runs one step on all namespaces, that of the links too, some of them at
// once.
func (b *builder) each(ctx context.Context, step func(*space) error, links func(*links) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	if b.links != nil {
		group.Go(func() error {
			if err := links(b.links); err != nil {
				return fmt.Errorf("links with delay, jitter or loss: %w", err)
			}
			return nil
		})
	}
	for _, s := range b.spaces {
		group.Go(func() error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := step(s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// give puts namespaces that are there already in their places.
func (b *builder) give(given map[string]*ns.Handle) error {
	placed := 0
	for _, s := range b.spaces {
		if h, ok := given[s.name]; ok {
			s.handle = h
			placed++
		}
	}
	if placed < len(given) {
		return fmt.Errorf("%d namespaces are given, %d of them for a host or box of the plan", len(given), placed)
	}
	return nil
}

// open makes the namespace, if it isn't given, and what needs no other:
// parameters, loopback and bridge.
func (b *builder) open(s *space) (err error) {
	if s.handle == nil {
		if s.handle, err = ns.New(); err != nil {
			return err
		}
	}
	err = s.handle.Do(func() (err error) {
		if s.netlink, err = openRTNL(); err != nil {
			return err
		}
		return setParameters(s.router)
	})
	if err != nil {
		return err
	}
	s.netlink.setUp("lo", loopback)
	if s.bridge != "" {
		s.netlink.addBridge(s.bridge, bridge, hardwareAddress(insideEnd, s.inside.Addr()))
		s.netlink.addAddress(s.bridge, bridge, s.inside)
	}
	return s.netlink.flush()
}

// connect makes the links of all members of the bridge.
func (b *builder) connect(s *space) error {
	for i, m := range s.members {
		addr := m.outside[0].Addr()
		port := end{m.port, portOffset + i, hardwareAddress(portEnd, addr)}
		if m.impaired == nil {
			s.netlink.addVeth(port, bridge, m.inner(), m.handle)
		} else {
			s.netlink.addVeth(port, bridge, m.impaired.far, b.links.handle)
		}
	}
	return s.netlink.flush()
}

// configure brings the uplink up and gives it addresses, routes and neighbours.
func (b *builder) configure(s *space) error {
	if s.uplink != "" {
		s.netlink.setUp(s.uplink, uplink)
	}
	for _, addr := range s.outside {
		s.netlink.addAddress(s.uplink, uplink, addr)
	}
	if s.gateway.IsValid() {
		s.netlink.addRoute(Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: s.gateway}, uplink)
	}
	for _, r := range s.routes {
		s.netlink.addRoute(r, bridge)
	}
	s.neighbours()
	return s.netlink.flush()
}

// neighbours tells each end of an uplink the other's hardware address for
// good. The kernel has one neighbour table for all namespaces of the machine,
// by default of 1024 entries, which a few labs at once would fill if every
// pair of hosts had to resolve each other; entries made for good don't count.
func (s *space) neighbours() {
	if s.gateway.IsValid() {
		s.netlink.addNeighbour(s.gateway, hardwareAddress(insideEnd, s.gateway), uplink)
	}
	for _, m := range s.members {
		for _, addr := range m.outside {
			s.netlink.addNeighbour(addr.Addr(), hardwareAddress(insideEnd, m.outside[0].Addr()), bridge)
		}
	}
}

// finish switches offloads off, waits for interfaces to be ready, and bounds
// rates. It comes after all uplinks are up, since only then a port is ready.
func (b *builder) finish(s *space) error {
	var names []string
	if s.uplink != "" {
		names = append(names, s.uplink)
	}
	for _, m := range s.members {
		names = append(names, m.port)
	}
	if s.bridge != "" {
		names = append(names, s.bridge) // last: its state follows from its ports'
	}
	for _, name := range names {
		if err := disableOffloads(s.netlink.fd, name); err != nil {
			return err
		}
		if err := settle(s.netlink.fd, name); err != nil {
			return err
		}
	}
	return s.limitRates()
}

// limitRates bounds the upward rate of the own link and the downward rates of
// the members' links, all of which leave by interfaces of this namespace.
func (s *space) limitRates() error {
	type job struct {
		index int
		rate  uint64
		whose string
	}
	var jobs []job
	if s.link.Up.Rate > 0 {
		jobs = append(jobs, job{uplink, s.link.Up.Rate, s.name + "'s uplink, up"})
	}
	for i, m := range s.members {
		if m.link.Down.Rate > 0 {
			jobs = append(jobs, job{portOffset + i, m.link.Down.Rate, m.name + "'s uplink, down"})
		}
	}
	if len(jobs) == 0 {
		return nil
	}
	shaper, err := newShaper(s.handle)
	if err != nil {
		return err
	}
	defer shaper.close()
	for _, j := range jobs {
		missing, err := shaper.limit(j.index, j.rate)
		if err != nil {
			return fmt.Errorf("shape %s: %w", j.whose, err)
		}
		if missing != "" {
			s.missing = append(s.missing, fmt.Sprintf("%s: this kernel can't do %s.", j.whose, missing))
		}
	}
	return nil
}

// The second byte of a hardware address tells the ends of a link apart.
const (
	insideEnd = 0
	portEnd   = 1
	nearEnd   = 2 // of a link with impairments, see links
	farEnd    = 3
	middle    = 4
	pointEnd  = 5 // of a measuring point, see Bench: no box that has moved has it too
)

// hardwareAddress makes a locally administered unicast address (IEEE 802, the
// bit of value 2 in the first byte) out of an IPv4 address, so that a capture
// reads well and the same plan always gives the same packets.
func hardwareAddress(which byte, a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return net.HardwareAddr{0x02, which, ip[0], ip[1], ip[2], ip[3]}
}
