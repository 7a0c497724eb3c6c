// Package router makes the container that it runs in one of a topology's boxes:
// addresses, routes and rules in the namespace that is there already. The
// container engine has joined it to the networks; which interface is which is
// told by their subnets, since the engine numbers interfaces as it likes.
package router

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo"
	"gauntlet/topo/ns"
)

// Stand makes this process's network namespace the box of that name, or, for
// topo.InternetName, the router that joins all boxes. It needs CAP_NET_ADMIN,
// and the kernel parameters of topo.RouterParameters and of the rules must be
// set where they can't be written.
func Stand(t scenario.Topology, name string) error {
	err := stand(t, name)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w (the container needs the capability NET_ADMIN)", err)
	}
	if err != nil {
		return fmt.Errorf("router %s: %w", name, err)
	}
	return nil
}

func stand(t scenario.Topology, name string) error {
	plan, err := topo.NewPlan(t.Description())
	if err != nil {
		return err
	}
	if name == topo.InternetName {
		inside, err := find(plan.Internet.Prefix)
		if err != nil {
			return err
		}
		return errors.Join(inside.become(plan.Internet.Addr), inside.routes(plan.Internet.Routes))
	}
	box, ok := plan.Box(name)
	if !ok {
		return errors.New("the topology has no such middlebox")
	}
	described, _ := t.Middleboxes.Get(name)
	behaviour, err := described.Behaviour()
	if err != nil {
		return err
	}
	outside, err := find(netip.PrefixFrom(box.WAN[0], box.WANBits).Masked())
	if err != nil {
		return err
	}
	inside, err := find(box.LAN)
	if err != nil {
		return err
	}
	// The rules first: no packet passes without them.
	rules, err := internet.Rules(plan, box, behaviour, outside.name(), inside.name())
	if err != nil {
		return err
	}
	if err := load(rules); err != nil {
		return err
	}
	err = inside.become(box.LANAddr)
	for _, a := range box.WAN[1:] {
		err = errors.Join(err, outside.add(a))
	}
	everywhere := topo.Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: box.Gateway}
	return errors.Join(err, outside.routes([]topo.Route{everywhere}), inside.routes(box.Routes))
}

func load(rules *middlebox.Ruleset) error {
	h, err := ns.Here()
	if err != nil {
		return err
	}
	return errors.Join(middlebox.Load(h, rules), h.Close())
}

// port is an interface, found by the subnet that it is in.
type port struct {
	link   netlink.Link
	subnet netip.Prefix
}

// find finds the interface that has an address in a subnet.
func find(subnet netip.Prefix) (port, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return port{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return port{}, fmt.Errorf("list the addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && subnet.Contains(ip) {
				return port{l, subnet}, nil
			}
		}
	}
	return port{}, fmt.Errorf("no interface is in %v; expected the container to be joined to that network", subnet)
}

func (p port) name() string { return p.link.Attrs().Name }

// network puts an address into the subnet.
func (p port) network(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.subnet.Bits(), 32)}
}

func (p port) add(a netip.Addr) error {
	if err := netlink.AddrAdd(p.link, &netlink.Addr{IPNet: p.network(a)}); err != nil {
		return fmt.Errorf("give %s the address %v: %w", p.name(), a, err)
	}
	return nil
}

// become gives the interface an address in the place of those that it has.
func (p port) become(a netip.Addr) error {
	addrs, err := netlink.AddrList(p.link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", p.name(), err)
	}
	for i := range addrs {
		if err := netlink.AddrDel(p.link, &addrs[i]); err != nil {
			return fmt.Errorf("take %v from %s: %w", addrs[i].IPNet, p.name(), err)
		}
	}
	return p.add(a)
}

func (p port) routes(routes []topo.Route) error {
	for _, r := range routes {
		to := &net.IPNet{IP: r.To.Addr().AsSlice(), Mask: net.CIDRMask(r.To.Bits(), 32)}
		err := netlink.RouteReplace(&netlink.Route{LinkIndex: p.link.Attrs().Index, Dst: to, Gw: r.Via.AsSlice()})
		if err != nil {
			return fmt.Errorf("route to %v via %v: %w", r.To, r.Via, err)
		}
	}
	return nil
}

// Renounce gives up all capabilities of this process, for good where it runs
// with no_new_privs.
func Renounce() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 {
		return fmt.Errorf("give up capabilities: %w", errno)
	}
	return nil
}
