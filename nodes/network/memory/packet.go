package memory

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// udpQueue is how many datagrams wait at a socket before more are dropped.
const udpQueue = 512

type datagram struct {
	from netip.AddrPort
	data []byte
}

// packetConn is a UDP socket in memory.
type packetConn struct {
	host  *host
	local netip.AddrPort // as asked for: the address may be unspecified
	bound []netip.AddrPort
	queue chan datagram

	closeOnce sync.Once
	closed    chan struct{}

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline moves
}

func (h *host) ListenPacket(_ context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	addrs, err := h.local(addr.Addr())
	if err != nil {
		return nil, fmt.Errorf("open UDP socket on %s: %w", addr, err)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.port(addrs, addr.Port(), func(a netip.AddrPort) bool { _, ok := n.udp[a]; return ok })
	if err != nil {
		return nil, fmt.Errorf("open UDP socket on %s: %w", addr, err)
	}
	c := &packetConn{
		host: h, local: netip.AddrPortFrom(addr.Addr(), p),
		queue: make(chan datagram, udpQueue), closed: make(chan struct{}), moved: make(chan struct{}),
	}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, p)
		n.udp[at] = c
		c.bound = append(c.bound, at)
	}
	return c, nil
}

func (c *packetConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		c.mu.Lock()
		deadline, moved := c.deadline, c.moved
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			wait := time.Until(deadline)
			if wait <= 0 {
				return 0, netip.AddrPort{}, c.fail("read", os.ErrDeadlineExceeded)
			}
			t := time.NewTimer(wait)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-c.closed:
			return 0, netip.AddrPort{}, c.fail("read", net.ErrClosed)
		case d := <-c.queue:
			return copy(b, d.data), d.from, nil
		case <-expired:
			return 0, netip.AddrPort{}, c.fail("read", os.ErrDeadlineExceeded)
		case <-moved:
		}
	}
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *packetConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, c.fail("write", net.ErrClosed)
	default:
	}
	from := c.bound[0]
	n := c.host.net
	if !n.passes("udp", from, to) {
		return len(b), nil
	}
	n.mu.Lock()
	d := datagram{from: n.leave(from, to), data: append([]byte(nil), b...)}
	n.mu.Unlock()
	n.after(func() {
		n.mu.Lock()
		var dst *packetConn
		if to, ok := n.enter(from, d.from, to); ok {
			dst = n.udp[to]
		}
		n.mu.Unlock()
		if dst == nil {
			return
		}
		select {
		case dst.queue <- d:
		default:
		}
	})
	return len(b), nil
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.fail("write", fmt.Errorf("%T is no UDP address", to))
	}
	ap := u.AddrPort()
	return c.WriteToUDPAddrPort(b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

func (c *packetConn) Close() error {
	err := c.fail("close", net.ErrClosed)
	c.closeOnce.Do(func() {
		n := c.host.net
		n.mu.Lock()
		for _, a := range c.bound {
			delete(n.udp, a)
		}
		n.mu.Unlock()
		close(c.closed)
		err = nil
	})
	return err
}

func (c *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

// SetWriteDeadline does nothing: a write never waits.
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

func (c *packetConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Err: err}
}
