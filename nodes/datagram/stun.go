package datagram

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

// STUNAnswer is a STUN response and where it came from.
type STUNAnswer struct {
	From    netip.AddrPort
	Message *stun.Message
}

// HandleSTUN has f called for every STUN message that answers no transaction
// of this socket: requests of others, as a rule. Handlers are asked in the
// order in which they came until one returns true. f runs in the reader: it
// must not block; it may keep the message.
func (s *Socket) HandleSTUN(f func(from netip.AddrPort, m *stun.Message) bool) (cancel func()) {
	h := &stunHandler{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stunFns = append(s.stunFns, h)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		var kept []*stunHandler
		for _, other := range s.stunFns {
			if other != h {
				kept = append(kept, other)
			}
		}
		s.stunFns = kept
	}
}

// AwaitSTUN registers a transaction: the first responses with this id go to
// the channel, from whatever address they come. cancel ends that.
func (s *Socket) AwaitSTUN(id [stun.TransactionIDSize]byte) (answers <-chan STUNAnswer, cancel func()) {
	ch := make(chan STUNAnswer, 4)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stunWait[id] = ch
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.stunWait, id)
	}
}

// STUN sends a request and sends it again, as [Socket.Request] does, until a
// response comes from that address or ctx ends.
func (s *Socket) STUN(ctx context.Context, to netip.AddrPort, m *stun.Message) (*stun.Message, error) {
	answers, cancel := s.AwaitSTUN(m.TransactionID)
	defer cancel()
	interval := s.cfg.Profile.UDPRetransmit
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		if err := s.WriteTo(m.Raw, to); err != nil {
			return nil, fmt.Errorf("STUN request: %w", err)
		}
	wait:
		for {
			select {
			case a := <-answers:
				if a.From == to {
					return a.Message, nil
				}
			case <-timer.C:
				interval = min(2*interval, maxRetransmit)
				timer.Reset(interval)
				break wait
			case <-ctx.Done():
				return nil, fmt.Errorf("STUN request to %s: %w", to, context.Cause(ctx))
			case <-s.ctx.Done():
				return nil, fmt.Errorf("STUN request to %s: %w", to, context.Cause(s.ctx))
			}
		}
	}
}

func (s *Socket) readSTUN(from netip.AddrPort, b []byte) {
	if !stun.IsMessage(b) || !s.limits.allow(from.Addr(), time.Now()) {
		return
	}
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if err := m.Decode(); err != nil {
		return
	}
	s.mu.Lock()
	var waiting chan<- STUNAnswer
	if m.Type.Class != stun.ClassRequest {
		waiting = s.stunWait[m.TransactionID]
	}
	handlers := s.stunFns
	s.mu.Unlock()
	if waiting != nil {
		select {
		case waiting <- STUNAnswer{From: from, Message: m}:
		default:
		}
		return
	}
	for _, h := range handlers {
		if h.f(from, m) {
			return
		}
	}
}
