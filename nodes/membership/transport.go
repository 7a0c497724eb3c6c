package membership

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A gossip connection begins with one byte that says what it is for.
const (
	forPackets = 'p' // messages with a 2-byte length, both ways
	forStream  = 's' // one exchange of memberlist's own
)

const (
	// maxGossip bounds a gossip message in bytes; memberlist makes them up to
	// its UDPBufferSize of 1400.
	maxGossip = 4096
	// pipeQueue is how many messages wait for a connection before more are
	// dropped, as UDP would drop them.
	pipeQueue = 64
	// pipeIdle closes a connection that carried nothing for so long.
	pipeIdle = 2 * time.Minute
	// openTimeout bounds connecting and the first byte.
	openTimeout = 5 * time.Second
	// maxInbound bounds the messages that wait for memberlist.
	maxInbound = 256
)

// dialer opens a TLS connection for gossip whose handshake is done.
type dialer func(ctx context.Context, to netip.AddrPort) (*tls.Conn, error)

// transport carries memberlist's packets and streams over mutual TLS. It
// implements memberlist.Transport. Packets to a peer share one connection,
// whichever side opened it.
type transport struct {
	self    netip.AddrPort
	dial    dialer
	packets chan *memberlist.Packet
	streams chan net.Conn

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	pipes map[netip.AddrPort]*pipe
}

// pipe is the way to one peer for packets.
type pipe struct {
	to    netip.AddrPort
	queue chan []byte
}

func newTransport(ctx context.Context, self netip.AddrPort, dial dialer) *transport {
	t := &transport{
		self: self, dial: dial, pipes: map[netip.AddrPort]*pipe{},
		packets: make(chan *memberlist.Packet, maxInbound), streams: make(chan net.Conn),
	}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.self.Addr().AsSlice(), int(t.self.Port()), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// Shutdown closes all connections and waits for the goroutines.
func (t *transport) Shutdown() error {
	t.mu.Lock() // no goroutine begins after this
	t.cancel()
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}

// WriteTo queues a message. What can't be sent is dropped, as a datagram
// would be: memberlist copes.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return now, fmt.Errorf("gossip to %q: %w", addr, err)
	}
	if len(b) > maxGossip {
		return now, fmt.Errorf("gossip to %s: %d bytes, at most %d", to, len(b), maxGossip)
	}
	message := append(binary.BigEndian.AppendUint16(make([]byte, 0, len(b)+2), uint16(len(b))), b...)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return now, fmt.Errorf("gossip to %s: %w", to, net.ErrClosed)
	}
	p := t.pipes[to]
	if p == nil {
		p = &pipe{to: to, queue: make(chan []byte, pipeQueue)}
		t.pipes[to] = p
		t.wg.Go(func() { t.open(p) })
	}
	select {
	case p.queue <- message:
	default:
	}
	return now, nil
}

func (t *transport) drop(p *pipe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pipes[p.to] == p {
		delete(t.pipes, p.to)
	}
}

// connect opens a connection for one use.
func (t *transport) connect(to netip.AddrPort, use byte, timeout time.Duration) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	c, err := t.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("gossip with %s: %w", to, err)
	}
	c.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte{use}); err != nil {
		c.Close()
		return nil, fmt.Errorf("gossip with %s: %w", to, err)
	}
	c.SetWriteDeadline(time.Time{})
	return c, nil
}

// open connects a pipe and runs it.
func (t *transport) open(p *pipe) {
	c, err := t.connect(p.to, forPackets, openTimeout)
	if err != nil {
		t.drop(p)
		return
	}
	t.run(p, c)
}

// run writes a pipe's queue and reads what comes back, until the connection
// breaks or is idle.
func (t *transport) run(p *pipe, c *tls.Conn) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer t.drop(p)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	t.wg.Go(func() {
		defer cancel()
		t.receive(ctx, c, p.to)
	})
	for {
		select {
		case <-ctx.Done():
			c.Close()
			return
		case b := <-p.queue:
			c.SetDeadline(time.Now().Add(pipeIdle))
			if _, err := c.Write(b); err != nil {
				c.Close()
				return
			}
		}
	}
}

// receive hands incoming messages to memberlist.
func (t *transport) receive(ctx context.Context, c net.Conn, from netip.AddrPort) {
	r := bufio.NewReader(c)
	var prefix [2]byte
	for {
		c.SetReadDeadline(time.Now().Add(pipeIdle))
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(prefix[:])
		if n == 0 || n > maxGossip {
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: b, From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
		case <-ctx.Done():
			return
		}
	}
}

// DialTimeout opens a stream for one exchange.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("gossip with %q: %w", addr, err)
	}
	c, err := t.connect(to, forStream, timeout)
	if err != nil {
		return nil, err
	}
	return t.stream(c), nil
}

// stream ties a connection that memberlist owns to the transport's life.
func (t *transport) stream(c net.Conn) net.Conn {
	return &stream{Conn: c, stop: context.AfterFunc(t.ctx, func() { c.Close() })}
}

type stream struct {
	net.Conn
	stop func() bool
}

func (s *stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// errNotGossip is for a connection that begins with another byte.
var errNotGossip = errors.New("gossip connection for no known use")

// serve takes an incoming connection of a verified supernode at that address
// and returns when it is done with it.
func (t *transport) serve(c *tls.Conn, from netip.AddrPort) error {
	t.mu.Lock()
	if t.ctx.Err() != nil {
		t.mu.Unlock()
		c.Close()
		return net.ErrClosed
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	stop := context.AfterFunc(t.ctx, func() { c.Close() })
	defer stop()
	var use [1]byte
	c.SetReadDeadline(time.Now().Add(openTimeout))
	if _, err := io.ReadFull(c, use[:]); err != nil {
		c.Close()
		return fmt.Errorf("gossip with %s: %w", from, err)
	}
	c.SetReadDeadline(time.Time{})
	switch use[0] {
	case forStream:
		select {
		case t.streams <- t.stream(c):
		case <-t.ctx.Done():
			c.Close()
		}
		return nil
	case forPackets:
		t.mu.Lock()
		p := t.pipes[from]
		if p != nil {
			// There is a way to this peer: this connection is read only.
			t.mu.Unlock()
			defer c.Close()
			t.receive(t.ctx, c, from)
			return nil
		}
		p = &pipe{to: from, queue: make(chan []byte, pipeQueue)}
		t.pipes[from] = p
		t.mu.Unlock()
		t.run(p, c)
		return nil
	}
	c.Close()
	return fmt.Errorf("gossip with %s: %w", from, errNotGossip)
}
