package search

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// Kinds of datagrams between users.
const (
	kindOpen  = directory.KindPeer     // lets the other end's datagrams in
	kindHello = directory.KindPeer + 1 // begins an authorization exchange
	kindChunk = directory.KindPeer + 2 // a piece of the greeting
	kindAck   = directory.KindPeer + 3 // what arrived of it
)

// maxOpening bounds the users that this one sends datagrams to at a time
// because they asked for it.
const maxOpening = 16

// maxOpenInterval is the longest wait between two opening datagrams; the
// first is the profile's CheckInterval, and it doubles. They are about 270
// bytes each.
const maxOpenInterval = 100 * time.Millisecond

type openMessage struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
}

// attempt is a caller's wait for the callee's opening datagram.
type attempt struct {
	peer [32]byte
	from chan netip.AddrPort
}

// opening is a callee's sending to a caller that asked for it.
type opening struct {
	peer *identity.Certificate
	seen chan netip.AddrPort // where the caller's own datagrams come from
	done chan struct{}       // closed when the caller said hello
}

// await asks the callee, with ask, to send an opening datagram and returns
// where the first one came from. Meanwhile it sends opening datagrams to the
// addresses given, the first before it asks: that one opens this end's box,
// and is lost at the callee's if that filters.
func (s *Service) await(ctx context.Context, r *directory.Record, session directory.Session, to []netip.AddrPort, ask func(context.Context) error) (netip.AddrPort, error) {
	bound := s.client.Profile.PunchTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no datagram from %s in %v", r.Name(), bound))
	defer cancel()
	a := &attempt{peer: r.Certificate.Hash(), from: make(chan netip.AddrPort, 1)}
	s.mu.Lock()
	s.attempts[session] = a
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.attempts, session)
		s.mu.Unlock()
	}()
	for _, one := range to {
		s.sendOpen(one, r.Certificate, session)
	}
	asked := make(chan error, 1)
	go func() { asked <- ask(ctx) }()
	interval := s.client.Profile.CheckInterval
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var from netip.AddrPort
	var err error
	for !from.IsValid() && err == nil {
		select {
		case from = <-a.from:
		case failed := <-asked:
			asked = nil
			if failed != nil {
				err = failed
			}
		case <-timer.C:
			for _, one := range to {
				s.sendOpen(one, r.Certificate, session)
			}
			interval = min(2*interval, maxOpenInterval)
			timer.Reset(interval)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	cancel()
	if asked != nil {
		<-asked
	}
	return from, err
}

func (s *Service) sendOpen(to netip.AddrPort, peer *identity.Certificate, session directory.Session) {
	if err := s.client.Socket.Send(to, peer.Seal, kindOpen, openMessage{Session: session}); err != nil {
		s.client.Log.Debug("opening datagram not sent", "to", to, "error", err)
	}
}

// handleOpen takes an opening datagram: the callee's, which the caller awaits,
// or the caller's, which tells the callee where it really comes from.
func (s *Service) handleOpen(_ context.Context, from netip.AddrPort, o *wire.Opened) any {
	var m openMessage
	if o.Cert == nil || o.Decode(&m) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.attempts[m.Session]; a != nil && a.peer == o.CertHash {
		select {
		case a.from <- from:
		default:
		}
	}
	if p := s.opening[m.Session]; p != nil && p.peer.Hash() == o.CertHash {
		select {
		case p.seen <- from:
		default:
		}
	}
	return nil
}

// answerOpen sends opening datagrams to a caller that asks for them, to the
// address that it gave and to where its own come from, until it says hello.
func (s *Service) answerOpen(in *directory.Introduction, from *identity.Certificate) {
	p := &opening{peer: from, seen: make(chan netip.AddrPort, 1), done: make(chan struct{})}
	s.mu.Lock()
	_, known := s.opening[in.Session]
	if known || len(s.opening) >= maxOpening || s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.opening[in.Session] = p
	s.tasks.Go(func() {
		s.client.Socket.Know(from)
		defer func() {
			s.mu.Lock()
			delete(s.opening, in.Session)
			s.mu.Unlock()
		}()
		if err := s.sendOpens(p, in); err != nil {
			s.client.Log.Info("caller not reached over UDP", "caller", from.Name, "at", in.UDP, "error", err)
		}
	})
	s.mu.Unlock()
}

func (s *Service) sendOpens(p *opening, in *directory.Introduction) error {
	end := time.NewTimer(s.client.Profile.PunchTimeout)
	defer end.Stop()
	interval := s.client.Profile.CheckInterval
	next := time.NewTimer(0)
	defer next.Stop()
	to := []netip.AddrPort{in.UDP}
	for {
		select {
		case <-next.C:
			for _, one := range to {
				s.sendOpen(one, p.peer, in.Session)
			}
			next.Reset(interval)
			interval = min(2*interval, maxOpenInterval)
		case seen := <-p.seen:
			if !slices.Contains(to, seen) && len(to) < 2 {
				to = append(to, seen)
				s.sendOpen(seen, p.peer, in.Session)
			}
		case <-p.done:
			return nil
		case <-end.C:
			return errors.New("it did not say hello")
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// opened ends the sending of opening datagrams, as the caller said hello, and says
// whether there was any. Called with the lock held.
func (s *Service) opened(session directory.Session, peer [32]byte) bool {
	p := s.opening[session]
	if p == nil || p.peer.Hash() != peer {
		return false
	}
	delete(s.opening, session)
	close(p.done)
	return true
}
