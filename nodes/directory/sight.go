package directory

import (
	"context"
	"net/netip"
	"time"

	"gauntlet/nodes/link"
)

// sightLife is how long a sighting holds: well below the shortest life of a
// binding in the field, 20 s (FSK05).
const sightLife = 3 * time.Second

// sighting is how a client's UDP socket is seen from outside.
type sighting struct {
	begun    time.Time
	done     chan struct{}  // closed when the rest is set
	external netip.AddrPort // zero: nobody answered
}

// See asks a supernode by STUN how this client's UDP socket is seen, unless that
// was done a moment ago: a binding that was known before may have expired, and
// what the box gives now is another one. Whoever gives the socket's address to
// another user sees first. The zero value means that nobody answers.
func (c *Client) See(ctx context.Context) netip.AddrPort {
	if !c.Reach().UDP || c.Observe == nil {
		return netip.AddrPort{}
	}
	c.mu.Lock()
	now := time.Now()
	if s := c.sight; s != nil && now.Sub(s.begun) < sightLife {
		c.mu.Unlock()
		select {
		case <-s.done:
			return s.external
		case <-ctx.Done():
			return netip.AddrPort{}
		}
	}
	s := &sighting{begun: now, done: make(chan struct{})}
	c.sight = s
	c.mu.Unlock()
	defer close(s.done)
	asking, cancel := context.WithTimeout(ctx, c.sightTime())
	defer cancel()
	external, err := c.Observe(asking)
	if err != nil {
		c.Log.Info("no supernode says how this end is seen", "error", err)
		if ctx.Err() != nil { // others may have more time
			c.mu.Lock()
			c.sight = nil
			c.mu.Unlock()
		}
		return netip.AddrPort{}
	}
	s.external = external
	return external
}

// sightTime bounds a sighting.
func (c *Client) sightTime() time.Duration { return c.Profile.UDPAnswer + c.Profile.STUNWait }

// Where tells this client's supernode, at its request, how the socket is seen
// now.
func (c *Client) Where(ctx context.Context) any {
	return whereAnswer{External: c.See(ctx)}
}

// where asks a client of this supernode where it is seen now. Where it doesn't
// answer in time, what was known before has to do.
func (s *Server) where(ctx context.Context, client *link.Conn, known netip.AddrPort) netip.AddrPort {
	ctx, cancel := context.WithTimeout(ctx, s.profile.UDPAnswer+s.profile.STUNWait)
	defer cancel()
	var answer whereAnswer
	if err := client.Call(ctx, MethodWhere, nil, &answer); err != nil {
		s.log.Info("a client does not say where it is", "known", known, "error", err)
		return known
	}
	if !answer.External.IsValid() {
		return known
	}
	return answer.External
}
