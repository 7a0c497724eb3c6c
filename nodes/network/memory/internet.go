// Package memory is an internet in memory: the twin of the operating system's
// network for tests. It uses channels, sync.Cond and timers only, so that it
// works inside a testing/synctest bubble, where waiting takes no time.
//
// UDP datagrams may be dropped: by the filter, for want of a receiver, or at a
// full queue. TCP connections are reliable; what the filter blocks is held
// back and tried again, as TCP would retransmit it.
package memory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"gauntlet/nodes/network"
)

// Filter says whether a packet passes. transport is "udp" or "tcp". For TCP
// it is asked for every segment, with from and to as the segment travels.
type Filter func(transport string, from, to netip.AddrPort) bool

// Option changes an Internet.
type Option func(*Internet)

// Latency sets the one-way delay of every packet. The default is none.
func Latency(d time.Duration) Option { return func(n *Internet) { n.latency = d } }

// WithFilter sets the first filter, see [Internet.SetFilter].
func WithFilter(f Filter) Option { return func(n *Internet) { n.filter = f } }

// firstEphemeral is where the search for a free port begins (RFC 6335 §6,
// dynamic ports).
const firstEphemeral = 49152

// Internet joins hosts. The zero value is not usable; call [New].
type Internet struct {
	latency time.Duration

	mu     sync.Mutex
	filter Filter
	udp    map[netip.AddrPort]*packetConn
	tcp    map[netip.AddrPort]*listener
	next   map[netip.Addr]uint16
	nats   map[netip.Addr]*NAT // by external address
	behind map[netip.Addr]*NAT // by the private address of a host
}

// New makes an internet without hosts.
func New(opts ...Option) *Internet {
	n := &Internet{
		udp:  map[netip.AddrPort]*packetConn{},
		tcp:  map[netip.AddrPort]*listener{},
		next: map[netip.Addr]uint16{},
		nats: map[netip.Addr]*NAT{}, behind: map[netip.Addr]*NAT{},
	}
	for _, o := range opts {
		o(n)
	}
	return n
}

// SetFilter replaces the filter; nil lets everything pass.
func (n *Internet) SetFilter(f Filter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

// Host adds a host with these addresses, the first being the default source.
// It panics without an address, as a test has no use for such a host.
func (n *Internet) Host(name string, addrs ...netip.Addr) network.Network {
	if len(addrs) == 0 {
		panic("memory: host " + name + " without an address")
	}
	return &host{net: n, name: name, addrs: addrs}
}

func (n *Internet) passes(transport string, from, to netip.AddrPort) bool {
	n.mu.Lock()
	f := n.filter
	n.mu.Unlock()
	return f == nil || f(transport, from, to)
}

// after runs f once the latency has passed, at once if there is none.
func (n *Internet) after(f func()) {
	if n.latency <= 0 {
		f()
		return
	}
	time.AfterFunc(n.latency, f)
}

type host struct {
	net   *Internet
	name  string
	addrs []netip.Addr
}

func (h *host) Addrs() []netip.Addr { return append([]netip.Addr(nil), h.addrs...) }

// OnLink is true of this host's own addresses and of those behind the same NAT.
func (h *host) OnLink(addr netip.Addr) bool {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	nat := h.net.behind[h.addrs[0]]
	return slices.Contains(h.addrs, addr) || nat != nil && nat == h.net.behind[addr]
}

// local lists the addresses that a socket on addr takes.
func (h *host) local(addr netip.Addr) ([]netip.Addr, error) {
	if !addr.IsValid() || addr.IsUnspecified() {
		return h.addrs, nil
	}
	for _, a := range h.addrs {
		if a == addr {
			return []netip.Addr{a}, nil
		}
	}
	return nil, fmt.Errorf("host %s: %s: %w", h.name, addr, syscall.EADDRNOTAVAIL)
}

// port finds a free port on all addresses, or checks the one given. Called
// with the lock held.
func (n *Internet) port(addrs []netip.Addr, want uint16, taken func(netip.AddrPort) bool) (uint16, error) {
	free := func(p uint16) bool {
		for _, a := range addrs {
			if taken(netip.AddrPortFrom(a, p)) {
				return false
			}
		}
		return true
	}
	if want != 0 {
		if !free(want) {
			return 0, fmt.Errorf("port %d: %w", want, syscall.EADDRINUSE)
		}
		return want, nil
	}
	for range 1<<16 - firstEphemeral {
		p := n.next[addrs[0]]
		if p < firstEphemeral {
			p = firstEphemeral
		}
		n.next[addrs[0]] = p + 1
		if free(p) {
			return p, nil
		}
	}
	return 0, errors.New("no free port")
}

// Dial opens a connection in one round trip. A blocked or unanswered
// handshake ends with ctx; a port without listener refuses.
func (h *host) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	if nat := n.behind[to.Addr()]; nat != nil && n.behind[h.addrs[0]] != nat {
		n.mu.Unlock()
		return nil, fmt.Errorf("connect to TCP %s: %w", to, syscall.ENETUNREACH)
	}
	p, err := n.port(h.addrs[:1], 0, func(a netip.AddrPort) bool { _, ok := n.tcp[a]; return ok })
	n.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("connect to TCP %s: %w", to, err)
	}
	from := netip.AddrPortFrom(h.addrs[0], p)
	for !n.passes("tcp", from, to) || !n.passes("tcp", to, from) {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to TCP %s: %w", to, context.Cause(ctx))
		case <-time.After(retransmit):
		}
	}
	if n.latency > 0 {
		t := time.NewTimer(2 * n.latency)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to TCP %s: %w", to, context.Cause(ctx))
		case <-t.C:
		}
	}
	n.mu.Lock()
	l := n.tcp[to]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("connect to TCP %s: %w", to, syscall.ECONNREFUSED)
	}
	near, far := n.pair(from, to)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	near.Close()
	far.Close()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("connect to TCP %s: %w", to, err)
	}
	return nil, fmt.Errorf("connect to TCP %s: %w", to, syscall.ECONNREFUSED)
}
