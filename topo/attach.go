package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// measuringOffset is the interface index of the first measuring port in a
// namespace, and measuringGroup the interface group of all of them. No port of
// a plan gets as high an index, see maxPorts.
const (
	measuringOffset = 10_000
	measuringGroup  = 0x6d656173
)

// Bench holds the measuring points of a network: hosts that no plan knows,
// attached to the internet or to a box's LAN for as long as something is
// measured. Its methods may be called from several goroutines at once.
type Bench struct {
	plan    *Plan
	network *Network

	mu     sync.Mutex
	given  map[netip.Addr]bool // addresses of the plan, and those that Free gave
	ports  int
	at     map[string][]netip.Addr // where points are attached, and their addresses
	spaces []*ns.Handle
}

// NewBench makes a bench without points for a network that Build made of the
// plan.
func NewBench(plan *Plan, network *Network) *Bench {
	b := &Bench{plan: plan, network: network, given: map[netip.Addr]bool{}, at: map[string][]netip.Addr{}}
	for _, h := range plan.Hosts {
		for _, a := range h.Addrs {
			b.given[a] = true
		}
	}
	for _, x := range plan.Boxes {
		for _, a := range x.WAN {
			b.given[a] = true
		}
	}
	return b
}

// side returns the network at a place, InternetName or a box's name, and the
// router's address in it.
func (b *Bench) side(at string) (netip.Prefix, netip.Addr, error) {
	if at == InternetName {
		return b.plan.Internet.Prefix, b.plan.Internet.Addr, nil
	}
	if box, ok := b.plan.Box(at); ok {
		return box.LAN, box.LANAddr, nil
	}
	return netip.Prefix{}, netip.Addr{}, fmt.Errorf("%q is neither a box nor %q", at, InternetName)
}

// bridgeAt is the name of the bridge at a place.
func bridgeAt(at string) string {
	if at == InternetName {
		return internetBridge
	}
	return lanInterface
}

// Free gives addresses on the internet or on a box's LAN that neither the plan
// nor an earlier call gave to anybody, the lowest first: a box that has a block
// of ports for each address inside has them for low ones. It fails if there are
// not as many.
func (b *Bench) Free(at string, n int) ([]netip.Addr, error) {
	prefix, gateway, err := b.side(at)
	if err != nil {
		return nil, fmt.Errorf("find free addresses: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	first := gateway.Next()
	if at == InternetName {
		first = publicFirst
	}
	var free []netip.Addr
	for a := first; len(free) < n; a = a.Next() {
		if !prefix.Contains(a) || a == last(prefix) {
			return nil, fmt.Errorf("find free addresses: %d of %d are left of %v at %s", len(free), n, prefix, at)
		}
		if !b.given[a] && !(at == InternetName && endsIn0or255(a)) {
			free = append(free, a)
		}
	}
	for _, a := range free {
		b.given[a] = true
	}
	return free, nil
}

// Attach adds a measuring point with addresses that Free gave, and returns its
// namespace, which stays the bench's. Its default route leads through the
// router there; routes are further ones, such as to the LAN of a firewall that
// is a neighbour on the LAN of another box.
// When Attach returns, packets pass between the point and its neighbours. Those
// that are boxes are told where it is: what they found out themselves about a
// point of the same address would outlive it.
func (b *Bench) Attach(at string, addrs []netip.Addr, routes ...Route) (*ns.Handle, error) {
	fail := func(err error) (*ns.Handle, error) {
		return nil, fmt.Errorf("attach a measuring point to %s: %w", at, err)
	}
	prefix, gateway, err := b.side(at)
	if err != nil {
		return fail(err)
	}
	bits := prefix.Bits()
	if at == InternetName {
		bits = 32 // there all go through the router, see assigner.members
	}
	outer := b.network.Namespace(at)
	if outer == nil || len(addrs) == 0 {
		return fail(fmt.Errorf("%d addresses; expected at least one, and a network that stands", len(addrs)))
	}
	point, err := ns.New()
	if err != nil {
		return fail(err)
	}
	b.mu.Lock()
	number := b.ports
	b.ports++
	b.at[at] = append(b.at[at], addrs...)
	b.spaces = append(b.spaces, point)
	b.mu.Unlock()

	port, mac := fmt.Sprint("m", number), hardwareAddress(pointEnd, addrs[0])
	if err := inside(point, func(*rtnl) error { return setParameters(false) }); err != nil {
		return fail(err)
	}
	err = inside(outer, func(r *rtnl) error {
		r.addVeth(
			end{port, measuringOffset + number, hardwareAddress(portEnd, addrs[0])}, bridge,
			end{hostInterface, uplink, mac}, point)
		r.setGroup(port, measuringOffset+number, measuringGroup)
		for _, a := range addrs {
			r.addNeighbour(a, mac, bridge)
		}
		return r.flush()
	})
	if err != nil {
		return fail(err)
	}
	for _, box := range b.plan.directlyBehind(at) {
		err := inside(b.network.Namespace(box.Name), func(r *rtnl) error {
			for _, a := range addrs {
				r.addNeighbour(a, mac, uplink)
			}
			return r.flush()
		})
		if err != nil {
			return fail(err)
		}
	}
	err = inside(point, func(r *rtnl) error {
		r.setUp("lo", loopback)
		r.setUp(hostInterface, uplink)
		for _, a := range prefixes(addrs, bits) {
			r.addAddress(hostInterface, uplink, a)
		}
		r.addNeighbour(gateway, hardwareAddress(insideEnd, gateway), uplink)
		for _, route := range append([]Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: gateway}}, routes...) {
			r.addRoute(route, uplink)
		}
		if err := r.flush(); err != nil {
			return err
		}
		return r.ready(hostInterface)
	})
	if err != nil {
		return fail(err)
	}
	err = inside(outer, func(r *rtnl) error {
		if err := r.ready(port); err != nil {
			return err
		}
		return settle(r.fd, bridgeAt(at)) // which has a carrier since the first port has one
	})
	if err != nil {
		return fail(err)
	}
	return point, nil
}

// Close removes all points. When it returns, no interface of theirs is left in
// the network. A bench that is closed can be used again.
func (b *Bench) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var removals errgroup.Group // at once, since each waits for the kernel's grace periods
	for at, addrs := range b.at {
		removals.Go(func() error {
			err := forget(b.network.Namespace(at), bridge, addrs)
			for _, box := range b.plan.directlyBehind(at) {
				err = errors.Join(err, forget(b.network.Namespace(box.Name), uplink, addrs))
			}
			err = errors.Join(err, inside(b.network.Namespace(at), func(r *rtnl) error {
				r.removeGroup(measuringGroup)
				if err := r.flush(); !errors.Is(err, unix.ENODEV) {
					return err
				}
				return nil // of a point that could not be made, there may be nothing
			}))
			if err != nil {
				return fmt.Errorf("remove measuring points of %s: %w", at, err)
			}
			return nil
		})
	}
	errs := []error{removals.Wait()}
	for _, h := range b.spaces {
		errs = append(errs, h.Close())
	}
	b.at, b.spaces = map[string][]netip.Addr{}, nil
	return errors.Join(errs...)
}

// inside runs f in a namespace with an rtnetlink socket there.
func inside(h *ns.Handle, f func(*rtnl) error) error {
	return h.Do(func() error {
		r, err := openRTNL()
		if err != nil {
			return err
		}
		return errors.Join(f(r), r.close())
	})
}

// forget makes the namespace forget those of the neighbours that it knows at an
// interface, whether it was told of them or has found them out.
func forget(h *ns.Handle, index int, neighbours []netip.Addr) error {
	return inside(h, func(r *rtnl) (err error) {
		for _, a := range neighbours {
			r.removeNeighbour(a, index)
			if refused := r.flush(); !errors.Is(refused, unix.ENOENT) {
				err = errors.Join(err, refused)
			}
		}
		return err
	})
}

// ready switches an interface's offloads off and waits until it forwards.
func (s *rtnl) ready(name string) error {
	if err := disableOffloads(s.fd, name); err != nil {
		return err
	}
	return settle(s.fd, name)
}

// setGroup queues putting an interface into a group.
func (s *rtnl) setGroup(name string, index int, group uint32) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	s.add("set group of "+name, unix.RTM_SETLINK, 0, msg, nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}

// removeGroup queues the removal of all interfaces of a group. Removing costs
// the kernel a grace period of RCU, once for all of them.
func (s *rtnl) removeGroup(group uint32) {
	s.add("remove measuring ports", unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}
