// Package network is the one small interface through which a node of the
// reference overlay reaches the network, and its implementation on the
// operating system's sockets. Its twin in memory is package network/memory.
package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Network is a host's view of the network. All methods may be called from
// several goroutines.
type Network interface {
	// Addrs are the addresses of this host; the first is the default source.
	// Loopback is left out unless the host has nothing else.
	Addrs() []netip.Addr
	// OnLink says whether an address is in a network that this host is attached
	// to, so that no router is between (RFC 1122 §3.3.1.1).
	OnLink(addr netip.Addr) bool
	// ListenPacket opens a UDP socket. The address may be unspecified, the port 0.
	ListenPacket(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error)
	// Listen opens a TCP listener. The address may be unspecified, the port 0.
	Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// Dial opens a TCP connection; ctx bounds how long that may take.
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// PacketConn is what the UDP sockets of both implementations offer beyond
// net.PacketConn: reading and writing without an allocation a packet.
type PacketConn interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// AddrPort reads the address out of a socket's net.Addr, with IPv4 in its
// short form. The zero value is the answer for an address that is neither TCP
// nor UDP.
func AddrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case interface{ AddrPort() netip.AddrPort }:
		return Unmap(a.AddrPort())
	case nil:
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return Unmap(ap)
}

// Unmap turns an IPv4-mapped IPv6 address into the IPv4 address, so that
// addresses compare equal however the socket reported them.
func Unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Unicast says whether an address that somebody else names can be that of a socket
// on another host: it is none of this host's own loopback or link, and not one of
// many hosts (RFC 6890 §2.2.2).
func Unicast(to netip.AddrPort) bool {
	a := to.Addr().Unmap()
	return to.Port() != 0 && a.IsGlobalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// OS is the network of the operating system, in the namespace of the process.
func OS() Network { return system{} }

type system struct{}

func (system) Addrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var usable, loopback []netip.Addr
	for _, a := range list {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch ip := prefix.Addr().Unmap(); {
		case ip.IsLoopback():
			loopback = append(loopback, ip)
		case !ip.IsLinkLocalUnicast():
			usable = append(usable, ip)
		}
	}
	if len(usable) == 0 {
		usable = loopback
	}
	slices.SortStableFunc(usable, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return usable
}

func (system) OnLink(addr netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Contains(addr.Unmap())
	})
}

func (system) ListenPacket(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, family("udp", addr), addr.String())
	if err != nil {
		return nil, fmt.Errorf("open UDP socket on %s: %w", addr, err)
	}
	return pc, nil
}

func (system) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, family("tcp", addr), addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen on TCP %s: %w", addr, err)
	}
	return l, nil
}

func (system) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, fmt.Errorf("connect to TCP %s: %w", to, err)
	}
	return c, nil
}

// family pins an address of IPv4 to an IPv4 socket, so that the unspecified
// address doesn't open a dual-stack one.
func family(transport string, addr netip.AddrPort) string {
	if addr.Addr().Is4() {
		return transport + "4"
	}
	return transport
}
