// Package datagram is the one UDP socket of a node. STUN messages, media
// packets and sealed datagrams share it, so that one NAT binding serves all;
// they are told apart by their first byte (RFC 7983 §7).
package datagram

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

const (
	// maxHandled bounds the sealed requests and notices that are opened and
	// handled at once; more are dropped, as a full queue would. Answers are
	// counted apart, so that handlers that wait for one get it.
	maxHandled = 64
	// maxPacket bounds a datagram that is read, in bytes.
	maxPacket = 2048
)

// Config is what a socket needs.
type Config struct {
	Keys    *identity.Keys
	Roots   identity.Roots
	Profile *profile.Profile
	Log     *slog.Logger // nil: nothing is logged
}

// Handler serves one kind of sealed datagram. o.Cert is the sender's verified
// certificate, nil for an anonymous sender. A result that is not nil is sent
// back as the answer; it must fit the size of the request. ctx ends with the
// socket.
type Handler func(ctx context.Context, from netip.AddrPort, o *wire.Opened) (answer any)

// Socket is a node's UDP socket. Its methods may be called from several
// goroutines.
type Socket struct {
	cfg    Config
	conn   network.PacketConn
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	cert   atomic.Pointer[identity.Certificate]
	slots  [2]chan struct{} // for requests and notices; for answers
	limits *limiter
	seen   *replay
	certs  *certificates

	mu       sync.Mutex
	handlers map[uint8]Handler
	waiting  map[[12]byte]*waiter
	stunWait map[[stun.TransactionIDSize]byte]chan<- STUNAnswer
	stunFns  []*stunHandler

	media   sync.RWMutex
	byMedia map[netip.AddrPort]*mediaHandler
	other   func(from netip.AddrPort, packet []byte)

	received [3]atomic.Uint64 // sealed, STUN, media
}

// mediaHandler and stunHandler are held by pointer, so that removing one is a
// comparison of identity.
type mediaHandler struct{ f func([]byte) }
type stunHandler struct {
	f func(netip.AddrPort, *stun.Message) bool
}

// Listen opens the socket and starts its reader. It lasts until ctx ends or
// Close is called.
func Listen(ctx context.Context, nw network.Network, addr netip.AddrPort, cfg Config) (*Socket, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	pc, err := nw.ListenPacket(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(network.PacketConn)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("open UDP socket on %s: %T can't read addresses", addr, pc)
	}
	s := &Socket{
		cfg: cfg, conn: conn, slots: [2]chan struct{}{make(chan struct{}, maxHandled), make(chan struct{}, maxHandled)},
		limits: newLimiter(cfg.Profile.DatagramRate, cfg.Profile.DatagramBurst),
		seen:   newReplay(cfg.Profile.ReplayWindow), certs: newCertificates(),
		handlers: map[uint8]Handler{}, waiting: map[[12]byte]*waiter{},
		stunWait: map[[stun.TransactionIDSize]byte]chan<- STUNAnswer{},
		byMedia:  map[netip.AddrPort]*mediaHandler{},
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.wg.Go(s.read)
	s.wg.Go(func() {
		<-s.ctx.Done()
		conn.Close()
	})
	return s, nil
}

// Close closes the socket and waits for its goroutines. It must not be called
// from a handler.
func (s *Socket) Close() error {
	s.cancel(net.ErrClosed)
	s.wg.Wait()
	return nil
}

// LocalAddr is the socket's own address; the IP is unspecified if it listens
// on all.
func (s *Socket) LocalAddr() netip.AddrPort { return network.AddrPort(s.conn.LocalAddr()) }

// SetCertificate sets the certificate that this node shows from now on; nil
// makes it anonymous.
func (s *Socket) SetCertificate(c *identity.Certificate) { s.cert.Store(c) }

// WriteTo sends raw bytes: media, or a STUN message.
func (s *Socket) WriteTo(b []byte, to netip.AddrPort) error {
	if _, err := s.conn.WriteToUDPAddrPort(b, to); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// Handle sets the handler of one kind of sealed datagram; nil removes it.
func (s *Socket) Handle(kind uint8, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == nil {
		delete(s.handlers, kind)
		return
	}
	s.handlers[kind] = h
}

// HandleMedia has f called for every packet whose first byte is 128 to 191
// that comes from this address, one after the other, from the reader itself: f
// must not block and must not keep the packet. A second handler of the same
// address replaces the first.
func (s *Socket) HandleMedia(from netip.AddrPort, f func(packet []byte)) (cancel func()) {
	h := &mediaHandler{f}
	s.media.Lock()
	defer s.media.Unlock()
	s.byMedia[from] = h
	return func() {
		s.media.Lock()
		defer s.media.Unlock()
		if s.byMedia[from] == h {
			delete(s.byMedia, from)
		}
	}
}

// HandleOther has f called, under the same conditions, for every media packet
// from an address without a handler of its own and for every datagram that is
// neither STUN nor media nor sealed: what a relay lives on.
func (s *Socket) HandleOther(f func(from netip.AddrPort, packet []byte)) {
	s.media.Lock()
	defer s.media.Unlock()
	s.other = f
}

// Received counts the datagrams that were read so far, by what they are.
func (s *Socket) Received() (sealed, stunMessages, media uint64) {
	return s.received[0].Load(), s.received[1].Load(), s.received[2].Load()
}

// read is the one reader. It hands sealed datagrams to goroutines of their
// own, since opening one takes public-key operations.
func (s *Socket) read() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				s.cancel(err)
				return
			}
			// An ICMP error of an earlier datagram, for example.
			continue
		}
		if n == 0 {
			continue
		}
		from = network.Unmap(from)
		b := buf[:n]
		switch first := b[0]; {
		case first >= 128 && first <= 191:
			s.received[2].Add(1)
			s.media.RLock()
			h, other := s.byMedia[from], s.other
			s.media.RUnlock()
			if h != nil {
				h.f(b)
			} else if other != nil {
				other(from, b)
			}
		case first <= 3:
			s.received[1].Add(1)
			s.readSTUN(from, b)
		case first == wire.FirstByte:
			s.received[0].Add(1)
			s.readSealed(from, b)
		default:
			s.media.RLock()
			other := s.other
			s.media.RUnlock()
			if other != nil {
				other(from, b)
			}
		}
	}
}

func (s *Socket) readSealed(from netip.AddrPort, b []byte) {
	kind, ok := wire.Kind(b)
	if !ok || !s.limits.allow(from.Addr(), time.Now()) {
		return
	}
	slots := s.slots[0]
	if kind&wire.Answer != 0 {
		slots = s.slots[1]
	}
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	packet := append([]byte(nil), b...)
	s.wg.Go(func() {
		defer func() { <-slots }()
		s.open(from, packet)
	})
}
