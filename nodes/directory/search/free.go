package search

import (
	"context"
	"fmt"
	"net/netip"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/freedom"
	"gauntlet/nodes/identity"
)

// greetFree is greet at an address that the callee has opened the way from. It
// returns what the path is called: by which of the two ends is free.
func (s *Service) greetFree(ctx context.Context, to netip.AddrPort, peer *identity.Certificate, session directory.Session, greeting []byte) (string, error) {
	asking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	greeted := make(chan error, 1)
	go func() {
		err := s.greet(ctx, to, peer, session, greeting)
		if err != nil {
			stop(err) // there is no path to name
		}
		greeted <- err
	}()
	caller, callee := s.findFree(asking, to, peer, session)
	if err := <-greeted; err != nil {
		return "", err
	}
	return freedom.Path(callee, caller), nil
}

// findFree finds out whether this end is free towards the other and the other
// towards this one.
func (s *Service) findFree(ctx context.Context, over netip.AddrPort, peer *identity.Certificate, session directory.Session) (mine, theirs bool) {
	bound := s.client.Profile.AnswerTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not found out in %v", bound))
	defer cancel()
	end, err := s.free.Open(ctx, session, peer, s.client.Reach().PublicUDP)
	if err != nil {
		s.client.Log.Warn("not found out who is free", "peer", peer.Name, "error", err)
		return false, false
	}
	defer end.Close()
	mine, theirs = end.Settle(ctx, over)
	s.client.Log.Info("found out who is free", "peer", peer.Name, "mine", mine, "theirs", theirs)
	return mine, theirs
}

// answerFree finds it out with a caller, at the callee's end, and stays for the
// caller's questions.
func (s *Service) answerFree(session directory.Session, peer *identity.Certificate, caller netip.AddrPort) {
	ctx, cancel := context.WithTimeout(s.ctx, s.client.Profile.AnswerTimeout)
	defer cancel()
	end, err := s.free.Open(ctx, session, peer, s.client.Reach().PublicUDP)
	if err != nil {
		s.client.Log.Warn("not found out who is free", "peer", peer.Name, "error", err)
		return
	}
	defer end.Close()
	end.Settle(ctx, caller)
	<-ctx.Done()
}
