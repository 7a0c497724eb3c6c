package role

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"gauntlet/nodes/network"
)

// meter counts what hosts write, by flow: payload bytes and writes.
type meter struct {
	mu    sync.Mutex
	flows map[string]*count
}

type count struct{ bytes, writes int }

func newMeter() *meter { return &meter{flows: map[string]*count{}} }

func (m *meter) wrap(n network.Network) network.Network { return metered{n, m} }

func (m *meter) add(transport string, from, to net.Addr, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fmt.Sprintf("%s %s %s", transport, network.AddrPort(from), network.AddrPort(to))
	if m.flows[key] == nil {
		m.flows[key] = &count{}
	}
	m.flows[key].bytes += n
	m.flows[key].writes++
}

// reset forgets what was counted.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.flows)
}

// of returns the counts of flows from and to hosts; an invalid address stands
// for all.
func (m *meter) of(transport string, from, to netip.Addr) map[string]count {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]count{}
	for key, c := range m.flows {
		part := strings.Fields(key)
		a, b := netip.MustParseAddrPort(part[1]).Addr(), netip.MustParseAddrPort(part[2]).Addr()
		if (transport == "" || transport == part[0]) && (!from.IsValid() || a == from) && (!to.IsValid() || b == to) {
			out[key] = *c
		}
	}
	return out
}

type metered struct {
	network.Network
	m *meter
}

func (n metered) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return meteredConn{c, n.m}, nil
}

func (n metered) Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	l, err := n.Network.Listen(ctx, at)
	if err != nil {
		return nil, err
	}
	return meteredListener{l, n.m}, nil
}

func (n metered) ListenPacket(ctx context.Context, at netip.AddrPort) (net.PacketConn, error) {
	c, err := n.Network.ListenPacket(ctx, at)
	if err != nil {
		return nil, err
	}
	return meteredSocket{c.(network.PacketConn), n.m}, nil
}

type meteredListener struct {
	net.Listener
	m *meter
}

func (l meteredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return meteredConn{c, l.m}, nil
}

type meteredConn struct {
	net.Conn
	m *meter
}

func (c meteredConn) Write(b []byte) (int, error) {
	c.m.add("tcp", c.LocalAddr(), c.RemoteAddr(), len(b))
	return c.Conn.Write(b)
}

type meteredSocket struct {
	network.PacketConn
	m *meter
}

func (s meteredSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.m.add("udp", s.LocalAddr(), net.UDPAddrFromAddrPort(to), len(b))
	return s.PacketConn.WriteToUDPAddrPort(b, to)
}
