package search

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// ackEvery is how many new chunks are acknowledged at once; the last one, and
// one that was here already, are at once.
const ackEvery = 4

// greet does the authorization exchange with the callee at an address: mutual
// proof, then the greeting, of which the profile's ChunkWindow of datagrams is
// under way at a time; what is not acknowledged is sent again.
func (s *Service) greet(ctx context.Context, to netip.AddrPort, peer *identity.Certificate, session directory.Session, greeting []byte) error {
	challenge, err := s.hello(ctx, to, peer, session, greeting)
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	acks := make(chan ack, 16)
	s.mu.Lock()
	s.sending[session] = acks
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sending, session)
		s.mu.Unlock()
	}()
	send := func(i int) error {
		data := greeting[min(i*chunkSize, len(greeting)):min((i+1)*chunkSize, len(greeting))]
		m := chunkMessage{Session: session, Nonce: challenge, Index: i, Data: data}
		return s.client.Socket.Send(to, peer.Seal, kindChunk, m)
	}
	w := newWindow(max(1, (len(greeting)+chunkSize-1)/chunkSize), s.client.Profile.ChunkWindow)
	retry := s.client.Profile.UDPRetransmit
	timer := time.NewTimer(retry)
	defer timer.Stop()
	for {
		for _, i := range w.next() {
			if err := send(i); err != nil {
				return fmt.Errorf("greeting: %w", err)
			}
		}
		select {
		case a := <-acks:
			if a.refused != "" {
				return fmt.Errorf("%s refuses the greeting: %q", peer.Name, a.refused)
			}
			if a.done {
				return nil
			}
			if w.acknowledge(a.have) {
				timer.Reset(retry)
			}
		case <-timer.C:
			w.lost()
			timer.Reset(retry)
		case <-ctx.Done():
			return fmt.Errorf("greeting: %d of %d datagrams acknowledged: %w", w.acked, len(w.state), context.Cause(ctx))
		}
	}
}

// handleChunk takes a piece of a greeting.
func (s *Service) handleChunk(_ context.Context, from netip.AddrPort, o *wire.Opened) any {
	var m chunkMessage
	if o.Cert == nil || o.Decode(&m) != nil {
		return nil
	}
	s.mu.Lock()
	g := s.coming[o.CertHash]
	if g == nil || g.session != m.Session || g.mine != m.Nonce {
		s.mu.Unlock()
		return nil
	}
	report, err := g.take(m.Index, m.Data)
	if err == nil && !g.done && g.missing == 0 {
		s.finish(g)
	}
	a := ackMessage{Session: g.session, Have: append([]byte(nil), g.have...), Done: g.done, Refused: g.refused}
	s.mu.Unlock()
	if err != nil || !report {
		return nil
	}
	if err := s.client.Socket.Send(from, o.Cert.Seal, kindAck, a); err != nil {
		s.client.Log.Debug("acknowledgement not sent", "to", from, "error", err)
	}
	return nil
}

// take puts a piece in its place and says whether an acknowledgement is due.
func (g *coming) take(index int, data []byte) (report bool, err error) {
	if g.done {
		return true, nil
	}
	at := index * chunkSize
	switch {
	case len(g.data) == 0 && index == 0 && len(data) == 0: // the empty greeting
		return true, nil
	case index < 0 || index >= 8*len(g.have) || at >= len(g.data) || len(data) != min(chunkSize, len(g.data)-at):
		return false, errors.New("chunk out of place")
	case g.have[index/8]&(1<<(index%8)) != 0:
		return true, nil
	}
	copy(g.data[at:], data)
	g.have[index/8] |= 1 << (index % 8)
	g.missing--
	return g.missing%ackEvery == 0, nil
}

// handleAck hands an acknowledgement to the greeting under way.
func (s *Service) handleAck(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
	var m ackMessage
	if o.Cert == nil || o.Decode(&m) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if to := s.sending[m.Session]; to != nil {
		select {
		case to <- ack{have: m.Have, done: m.Done, refused: m.Refused}:
		default:
		}
	}
	return nil
}
