package datagram

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// waiter is a request under way.
type waiter struct {
	to     netip.AddrPort
	kind   uint8
	answer chan *wire.Opened
}

// maxRetransmit is the longest interval between two copies of a request.
const maxRetransmit = 1600 * time.Millisecond

// Request sends msg, sealed and padded, and sends it again at the profile's
// interval, doubling, until an answer comes or ctx ends. The answer must come
// from the same address and name the request's nonce, which only the holder of
// toKey could read. The certificate is attached if this node has one.
func (s *Socket) Request(ctx context.Context, to netip.AddrPort, toKey *ecdh.PublicKey, kind uint8, msg, answer any) error {
	return s.request(ctx, to, toKey, s.message(kind, msg, true, wire.RequestSize), answer)
}

// shortRequest is what a request is padded to that has the certificate's hash alone,
// in bytes, so that an answer of some addresses fits its size.
const shortRequest = 256

// RequestShort is Request without the certificate, about 950 bytes less: for a
// receiver that has seen it in the last minutes, and a short answer.
func (s *Socket) RequestShort(ctx context.Context, to netip.AddrPort, toKey *ecdh.PublicKey, kind uint8, msg, answer any) error {
	return s.request(ctx, to, toKey, s.message(kind, msg, false, shortRequest), answer)
}

func (s *Socket) request(ctx context.Context, to netip.AddrPort, toKey *ecdh.PublicKey, m wire.Message, answer any) error {
	packet, nonce, err := wire.SealMessage(toKey, m)
	if err != nil {
		return fmt.Errorf("request to %s: %w", to, err)
	}
	w := &waiter{to: to, kind: m.Kind, answer: make(chan *wire.Opened, 1)}
	s.mu.Lock()
	s.waiting[nonce] = w
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, nonce)
		s.mu.Unlock()
	}()
	interval := s.cfg.Profile.UDPRetransmit
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var sendErr error
	for {
		if err := s.WriteTo(packet, to); err != nil {
			sendErr = err // perhaps for now only; ctx decides
		}
		select {
		case o := <-w.answer:
			if answer == nil {
				return nil
			}
			if err := o.Decode(answer); err != nil {
				return fmt.Errorf("answer of %s: %w", to, err)
			}
			return nil
		case <-timer.C:
			interval = min(2*interval, maxRetransmit)
			timer.Reset(interval)
		case <-ctx.Done():
			return fmt.Errorf("request to %s: no answer: %w", to, errors.Join(context.Cause(ctx), sendErr))
		case <-s.ctx.Done():
			return fmt.Errorf("request to %s: %w", to, context.Cause(s.ctx))
		}
	}
}

// Send sends one sealed datagram without expecting an answer, signed but
// without the certificate itself: for a receiver that has seen it in the
// last minutes.
func (s *Socket) Send(to netip.AddrPort, toKey *ecdh.PublicKey, kind uint8, msg any) error {
	return s.send(to, toKey, s.message(kind, msg, false, 0))
}

// Introduce is Send with the certificate attached: about 650 bytes more.
func (s *Socket) Introduce(to netip.AddrPort, toKey *ecdh.PublicKey, kind uint8, msg any) error {
	return s.send(to, toKey, s.message(kind, msg, true, 0))
}

func (s *Socket) send(to netip.AddrPort, toKey *ecdh.PublicKey, m wire.Message) error {
	packet, _, err := wire.SealMessage(toKey, m)
	if err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return s.WriteTo(packet, to)
}

func (s *Socket) message(kind uint8, msg any, attach bool, size int) wire.Message {
	return wire.Message{Kind: kind, From: s.cfg.Keys, Cert: s.cert.Load(), AttachCert: attach,
		Now: time.Now(), Size: size, Body: msg}
}

// open unseals a datagram, checks who sent it, and gives it to whoever waits
// for it.
func (s *Socket) open(from netip.AddrPort, packet []byte) {
	o, err := wire.Open(s.cfg.Keys.Seal, packet)
	if err != nil {
		s.cfg.Log.Debug("datagram dropped", "from", from, "error", err)
		return
	}
	now := time.Now()
	if err := s.authenticate(o, now); err != nil {
		s.cfg.Log.Debug("datagram dropped", "from", from, "kind", o.Kind, "error", err)
		return
	}
	if o.Kind&wire.Answer != 0 {
		s.deliver(from, o)
		return
	}
	fresh, stored := s.seen.check(o.Nonce, o.Time, from, now)
	if !fresh {
		if stored != nil {
			s.WriteTo(stored, from) // its answer was lost
		}
		return
	}
	s.mu.Lock()
	h := s.handlers[o.Kind]
	s.mu.Unlock()
	if h == nil {
		return
	}
	result := h(s.ctx, from, o)
	if result == nil {
		return
	}
	m := s.message(o.Kind|wire.Answer, result, false, 0)
	m.Answers = o.Nonce[:]
	// A supernode's certificate is known to whoever has its key; leaving it out
	// and the signature with it keeps answers short. The nonce proves the answer.
	m.Cert = nil
	answer, _, err := wire.SealMessage(o.Reply, m)
	if err != nil {
		s.cfg.Log.Warn("answer not sent", "to", from, "kind", o.Kind, "error", err)
		return
	}
	if len(answer) > o.Size {
		s.cfg.Log.Warn("answer not sent: larger than its request", "to", from, "kind", o.Kind,
			"answer", len(answer), "request", o.Size)
		return
	}
	s.seen.store(o.Nonce, answer)
	s.WriteTo(answer, from)
}

// authenticate verifies certificate and signature of a sender that shows one,
// and sets o.Cert to what was verified.
func (s *Socket) authenticate(o *wire.Opened, now time.Time) error {
	if o.Anonymous() {
		return nil
	}
	c := s.certs.get(o.CertHash)
	if c == nil {
		if o.Cert == nil {
			return errors.New("certificate not known")
		}
		c = o.Cert
	}
	if err := s.verify(o, c, now); err != nil {
		return err
	}
	s.certs.put(o.CertHash, c)
	o.Cert = c
	return nil
}

func (s *Socket) verify(o *wire.Opened, c *identity.Certificate, now time.Time) error {
	if err := s.cfg.Roots.Verify(c, now); err != nil {
		return err
	}
	return o.Verify(c)
}

// Know has the socket accept datagrams signed with this certificate, which
// the caller has verified, when they carry its hash only.
func (s *Socket) Know(c *identity.Certificate) { s.certs.put(c.Hash(), c) }

// deliver hands an answer to its request.
func (s *Socket) deliver(from netip.AddrPort, o *wire.Opened) {
	nonce := [12]byte(o.Answers)
	s.mu.Lock()
	w := s.waiting[nonce]
	if w == nil || w.to != from || w.kind|wire.Answer != o.Kind {
		s.mu.Unlock()
		return
	}
	delete(s.waiting, nonce)
	s.mu.Unlock()
	w.answer <- o
}
