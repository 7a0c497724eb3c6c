// Package link is a connection between two nodes over which either side sends
// requests, answers and notices as framed CBOR. It runs on any net.Conn, as a
// rule a TLS connection whose handshake is done.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/wire"
)

const (
	// maxServed bounds the other side's requests that are served at once; one
	// more is answered with CodeBusy.
	maxServed = 32
	// maxNotices bounds the notices that wait for the handler; one more ends
	// the link.
	maxNotices = 128
	// writeTimeout bounds the writing of one frame. A peer that reads nothing
	// for so long is taken as dead.
	writeTimeout = 10 * time.Second
)

// Codes of errors that cross the link.
const (
	CodeFailed  = 1 // the handler failed, the text says why
	CodeUnknown = 2 // no such method
	CodeBusy    = 3 // too many requests at once
	CodeRefused = 4 // not allowed to this peer
)

// Error is an error that crossed the link.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return e.Text }

// ErrUnknown is what a handler returns for a method that it doesn't have.
var ErrUnknown = &Error{Code: CodeUnknown, Text: "unknown method"}

// Refused makes the error for a request that this peer may not make.
func Refused(format string, args ...any) error {
	return &Error{Code: CodeRefused, Text: fmt.Sprintf(format, args...)}
}

// Handler serves the other side's requests and notices. body is CBOR, for
// [wire.Unmarshal]; it may be kept. Requests are served in goroutines of their
// own, notices one after the other in order; answer and error of a notice are
// dropped. ctx ends with the link.
type Handler func(ctx context.Context, c *Conn, method string, body []byte) (answer any, err error)

// ErrClosed is why a link ended that this side closed.
var ErrClosed = errors.New("link closed")

// Conn is a link. Its methods may be called from several goroutines.
type Conn struct {
	nc      net.Conn
	handler Handler
	ctx     context.Context
	cancel  context.CancelCauseFunc
	peer    atomic.Pointer[identity.Certificate]
	remote  netip.AddrPort

	writing chan struct{} // holds one token: the right to write
	served  chan struct{}
	notices chan *wire.Frame
	wg      sync.WaitGroup

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan *wire.Frame
	ended   bool
	onClose []func()
}

// New runs a link on nc, whose handshake is done, until it breaks, ctx ends
// or Close is called. Both sides are alike. peer is who the other side has
// proved to be, nil for nobody yet; h may be nil.
func New(ctx context.Context, nc net.Conn, peer *identity.Certificate, h Handler) *Conn {
	c := &Conn{
		nc: nc, handler: h, remote: network.AddrPort(nc.RemoteAddr()),
		writing: make(chan struct{}, 1), served: make(chan struct{}, maxServed),
		notices: make(chan *wire.Frame, maxNotices), waiting: map[uint64]chan *wire.Frame{},
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	if peer != nil {
		c.peer.Store(peer)
	}
	c.wg.Go(c.read)
	c.wg.Go(c.notify)
	c.wg.Go(func() {
		<-c.ctx.Done()
		c.end()
	})
	return c
}

// Handshaken does the TLS handshake of nc, bounded by ctx, and runs a link on
// it. The peer is the one of the certificate shown, if it is one of roots'.
// On an error nc is closed. run bounds the life of the link.
func Handshaken(ctx, run context.Context, nc *tls.Conn, roots identity.Roots, h Handler) (*Conn, error) {
	if err := nc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", nc.RemoteAddr(), err)
	}
	return New(run, nc, identity.PeerCertificate(nc.ConnectionState(), roots), h), nil
}

// Peer is the certificate of the other side, nil as long as it has shown none.
func (c *Conn) Peer() *identity.Certificate { return c.peer.Load() }

// SetPeer records who the other side has proved to be.
func (c *Conn) SetPeer(cert *identity.Certificate) { c.peer.Store(cert) }

// RemoteAddr is the other end's address as seen from here.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() netip.AddrPort { return network.AddrPort(c.nc.LocalAddr()) }

// Done is closed when the link has ended.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Err is why the link ended, nil while it runs.
func (c *Conn) Err() error { return context.Cause(c.ctx) }

// OnClose has f called once when the link has ended, at once if it has. f
// must not block.
func (c *Conn) OnClose(f func()) {
	c.mu.Lock()
	if !c.ended {
		c.onClose = append(c.onClose, f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f()
}

// Close ends the link. It doesn't wait; see Wait. It may be called from a
// handler.
func (c *Conn) Close() error {
	c.cancel(ErrClosed)
	return nil
}

// Wait returns when the link has ended and all of its goroutines with it,
// handlers included. It must not be called from a handler.
func (c *Conn) Wait() { c.wg.Wait() }

// Export derives keying material from the TLS session that both ends hold
// (RFC 8446 §7.5).
func (c *Conn) Export(label string, context []byte, n int) ([]byte, error) {
	t, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil, fmt.Errorf("export keying material: %T is no TLS connection", c.nc)
	}
	s := t.ConnectionState()
	b, err := s.ExportKeyingMaterial(label, context, n)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	return b, nil
}

// end runs once, when the context is done.
func (c *Conn) end() {
	c.nc.Close()
	c.mu.Lock()
	c.ended = true
	fs := c.onClose
	c.onClose = nil
	c.mu.Unlock()
	for _, f := range fs {
		f()
	}
}
