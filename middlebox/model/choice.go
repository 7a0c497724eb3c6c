package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"gauntlet/middlebox"
)

// ErrNoPort says that no external endpoint is left to choose.
var ErrNoPort = errors.New("no external port is left")

// firstPort is the first that a box gives out by itself.
const firstPort = 1024

// Choice is a choice of an external endpoint for a new mapping, out of those
// that the behaviour allows.
type Choice struct {
	Inside netip.AddrPort // for whom

	box      *Box
	protocol middlebox.Protocol
	peer     netip.AddrPort // towards whom, where ports are connection tracking's choice
}

// taken says whether somebody has an external endpoint.
func (c Choice) taken(e netip.AddrPort) bool {
	if c.box.tracked() {
		return c.box.inUse(c.protocol, e, c.peer)
	}
	return c.box.taken(c.protocol, e)
}

// Chooser makes a choice. A test of a kernel returns what the kernel chose.
type Chooser func(Choice) (netip.AddrPort, error)

// First chooses the first endpoint that is allowed, in the order of addresses
// and ports.
func First(c Choice) (netip.AddrPort, error) {
	for _, a := range c.box.wan {
		preferred := netip.AddrPortFrom(a, c.Inside.Port())
		if c.Allows(preferred) == nil {
			return preferred, nil
		}
		for port := firstPort; port < 1<<16; port++ {
			if e := netip.AddrPortFrom(a, uint16(port)); c.Allows(e) == nil {
				return e, nil
			}
		}
	}
	return netip.AddrPort{}, ErrNoPort
}

// Allows returns nil if the behaviour allows that external endpoint, or why it
// doesn't.
func (c Choice) Allows(e netip.AddrPort) error {
	b := c.box
	if !b.isWAN(e.Addr()) {
		return fmt.Errorf("%v is no external address of the box", e.Addr())
	}
	if paired, ok := b.paired[c.Inside.Addr()]; ok && b.behaviour.Pool != middlebox.ArbitraryPool && paired != e.Addr() {
		return fmt.Errorf("%v has %v, and pool is paired; not %v", c.Inside.Addr(), paired, e.Addr())
	}
	if c.taken(e) {
		return fmt.Errorf("%v belongs to another endpoint", e)
	}
	switch b.ports {
	case middlebox.PreservePorts:
		preserved := netip.AddrPortFrom(e.Addr(), c.Inside.Port())
		if e != preserved && !c.taken(preserved) {
			return fmt.Errorf("%v isn't preserved, although %v is free", e, preserved)
		}
		if e == preserved {
			return nil
		}
	case middlebox.SequentialPorts:
		if last, ok := b.last[c.protocol][e.Addr()]; ok && e.Port() != b.next(c.protocol, e.Addr(), last) {
			return fmt.Errorf("port %d after %d; expected %d", e.Port(), last, b.next(c.protocol, e.Addr(), last))
		}
	case middlebox.ParityPorts:
		if e.Port()%2 != c.Inside.Port()%2 {
			return fmt.Errorf("port %d for port %d; expected the same parity", e.Port(), c.Inside.Port())
		}
	case middlebox.BlockPorts:
		first, size, ok := b.block(c.Inside.Addr())
		if !ok {
			return fmt.Errorf("%v has no block of ports", c.Inside.Addr())
		}
		if int(e.Port()) < first || int(e.Port()) >= first+size {
			return fmt.Errorf("port %d; expected one of the block %d to %d", e.Port(), first, first+size-1)
		}
	}
	if e.Port() < firstPort {
		return fmt.Errorf("port %d; expected at least %d", e.Port(), firstPort)
	}
	return nil
}

// next returns the first free port after one.
func (b *Box) next(p middlebox.Protocol, a netip.Addr, after uint16) uint16 {
	for port := after + 1; ; port++ {
		if port < firstPort {
			port = firstPort
		}
		if port == after || !b.taken(p, netip.AddrPortFrom(a, port)) {
			return port
		}
	}
}

// firstInside is the first address of a network inside, counting its own as 0,
// that has a block of ports: the one before is a box's.
const firstInside = 2

// block returns the ports of an internal address: the n-th address of a network
// inside, its first being the 0-th, comes after those of all networks before the
// n-th.
func (b *Box) block(inside netip.Addr) (first, size int, ok bool) {
	size = b.behaviour.PortBlock
	if size == 0 {
		size = middlebox.DefaultPortBlock
	}
	network := slices.IndexFunc(b.networks, func(p netip.Prefix) bool { return p.Contains(inside) })
	if network < 0 {
		return 0, size, false
	}
	base, host := b.networks[network].Masked().Addr().As4(), inside.As4()
	n := 0
	for i := range base {
		n = n<<8 | int(host[i]) - int(base[i])
	}
	number := (n-firstInside)*len(b.networks) + network
	return firstPort + number*size, size, n >= firstInside && number < middlebox.Subscribers(size)
}
