package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// backlog is how many connections wait to be accepted.
	backlog = 128
	// window is how many bytes are under way or unread in one direction
	// before a writer waits.
	window = 64 << 10
	// retransmit is how long a segment that the filter blocked is held back
	// before it is tried again; Linux's minimum RTO.
	retransmit = 200 * time.Millisecond
)

// listener is a TCP listener in memory.
type listener struct {
	host  *host
	local netip.AddrPort
	bound []netip.AddrPort
	queue chan *conn

	closeOnce sync.Once
	closed    chan struct{}
}

func (h *host) Listen(_ context.Context, addr netip.AddrPort) (net.Listener, error) {
	addrs, err := h.local(addr.Addr())
	if err != nil {
		return nil, fmt.Errorf("listen on TCP %s: %w", addr, err)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.port(addrs, addr.Port(), func(a netip.AddrPort) bool { _, ok := n.tcp[a]; return ok })
	if err != nil {
		return nil, fmt.Errorf("listen on TCP %s: %w", addr, err)
	}
	l := &listener{host: h, local: netip.AddrPortFrom(addr.Addr(), p),
		queue: make(chan *conn, backlog), closed: make(chan struct{})}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, p)
		n.tcp[at] = l
		l.bound = append(l.bound, at)
	}
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Source: l.Addr(), Err: net.ErrClosed}
	case c := <-l.queue:
		return c, nil
	}
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.local) }

func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		n := l.host.net
		n.mu.Lock()
		for _, a := range l.bound {
			delete(n.tcp, a)
		}
		n.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

// half is one direction of a connection.
type half struct {
	net      *Internet
	from, to netip.AddrPort

	mu       sync.Mutex
	changed  sync.Cond
	flight   [][]byte // written, not yet arrived, in order; nil marks the end
	arrived  []byte
	pending  int  // bytes in flight and arrived
	finished bool // the writer is done
	eof      bool // its end arrived
	dead     bool // the reader is gone

	readBy, writeBy deadline
}

// deadline is one end's limit; its timer wakes the waiters.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (n *Internet) half(from, to netip.AddrPort) *half {
	h := &half{net: n, from: from, to: to}
	h.changed.L = &h.mu
	return h
}

func (n *Internet) pair(from, to netip.AddrPort) (near, far *conn) {
	up, down := n.half(from, to), n.half(to, from)
	return &conn{in: down, out: up, local: from, remote: to}, &conn{in: up, out: down, local: to, remote: from}
}

// setDeadline moves d. Called without the lock.
func (h *half) setDeadline(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

// expired is called with the lock held.
func (d *deadline) expired() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := 0
	for len(b) > 0 {
		switch {
		case h.finished:
			return total, net.ErrClosed
		case h.dead:
			return total, syscall.EPIPE
		case h.writeBy.expired():
			return total, os.ErrDeadlineExceeded
		case h.pending >= window:
			h.changed.Wait()
			continue
		}
		n := min(len(b), window-h.pending)
		h.flight = append(h.flight, append([]byte(nil), b[:n]...))
		h.pending += n
		total += n
		b = b[n:]
		h.launch()
	}
	return total, nil
}

// launch sends the newest segment on its way. Called with the lock held. The
// timer delivers whichever segment is the oldest, so order is kept.
func (h *half) launch() {
	d := h.net.latency
	if d <= 0 && len(h.flight) == 1 && h.net.passes("tcp", h.from, h.to) {
		h.land()
		return
	}
	time.AfterFunc(d, h.arrive)
}

func (h *half) arrive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || len(h.flight) == 0 {
		return
	}
	if !h.net.passes("tcp", h.from, h.to) {
		time.AfterFunc(retransmit, h.arrive)
		return
	}
	h.land()
}

// land delivers the oldest segment. Called with the lock held.
func (h *half) land() {
	segment := h.flight[0]
	h.flight = h.flight[1:]
	if segment == nil {
		h.eof = true
	}
	h.arrived = append(h.arrived, segment...)
	h.changed.Broadcast()
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.dead:
			return 0, net.ErrClosed
		case h.readBy.expired():
			return 0, os.ErrDeadlineExceeded
		case len(h.arrived) > 0:
			n := copy(b, h.arrived)
			h.arrived = h.arrived[n:]
			if len(h.arrived) == 0 {
				h.arrived = nil
			}
			h.pending -= n
			h.changed.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		h.changed.Wait()
	}
}

// finish ends the writing side: the reader meets the end after the data.
func (h *half) finish() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finished {
		return false
	}
	h.finished = true
	h.flight = append(h.flight, nil)
	h.launch()
	h.changed.Broadcast()
	return true
}

// abandon ends the reading side: the writer meets a broken pipe.
func (h *half) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	h.flight, h.arrived = nil, nil
	h.changed.Broadcast()
}

// conn is a TCP connection in memory.
type conn struct {
	in, out       *half
	local, remote netip.AddrPort
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.fail("read", err)
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	if err != nil {
		err = c.fail("write", err)
	}
	return n, err
}

// CloseWrite is the half close of TCP.
func (c *conn) CloseWrite() error {
	if !c.out.finish() {
		return c.fail("close", net.ErrClosed)
	}
	return nil
}

func (c *conn) Close() error {
	c.out.finish()
	c.in.abandon()
	c.in.setDeadline(&c.in.readBy, time.Time{})
	c.out.setDeadline(&c.out.writeBy, time.Time{})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
