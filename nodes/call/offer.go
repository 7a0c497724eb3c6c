package call

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gauntlet/nodes/network"
	"gauntlet/nodes/stun"
)

const (
	// freshAsked is how many new destinations are asked for a prediction.
	freshAsked = 3
	// forgotten is when a box has forgotten a destination, for all that is
	// known: twice what RFC 4787 REQ-5 recommends.
	forgotten = 10 * time.Minute
	// predictedPorts is how many ports are tried after the last one seen.
	predictedPorts = 8
)

// look has it found out how this end's socket is seen, by the time that it is
// asked for. It does not wait.
func (s *Service) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() == nil {
		s.tasks.Go(func() { s.client.See(s.ctx) })
	}
}

// predict asks supernodes to which this socket has sent nothing lately: a box
// that gives ports out one after the other shows it, and which comes next. It
// returns nothing for any other box.
//
// Three that are asked at once show the sequence. From then on one tells where
// it has got to, if what it sees lies ahead of the last port known: a port that
// doesn't was given before, to a destination that the box still knew, and says
// nothing of the next.
func (s *Service) predict(ctx context.Context) []netip.AddrPort {
	ctx, cancel := context.WithTimeout(ctx, s.client.Profile.UDPAnswer+s.client.Profile.STUNWait)
	defer cancel()
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	for n := 0; n < freshAsked && last.IsValid(); n++ {
		if seen := s.askFresh(ctx, 1); len(seen) == 1 && ahead(last, seen[0]) {
			return s.follow(seen[0])
		}
	}
	// Nothing is known, or what was no longer holds.
	seen := s.askFresh(ctx, freshAsked)
	n := len(seen)
	if n < 2 || !ahead(seen[n-2], seen[n-1]) || seen[n-1].Port()-seen[n-2].Port() > freshAsked {
		s.follow(netip.AddrPort{})
		return nil
	}
	return s.follow(seen[n-1])
}

// askFresh asks up to so many fresh supernodes at once how they see this
// socket, and returns what they say in the order of ports.
func (s *Service) askFresh(ctx context.Context, want int) []netip.AddrPort {
	servers := s.fresh(want)
	seen := make([]netip.AddrPort, len(servers))
	var tasks sync.WaitGroup
	for i, server := range servers {
		tasks.Go(func() { seen[i], _ = stun.Binding(ctx, s.client.Socket, server) })
	}
	tasks.Wait()
	seen = slices.DeleteFunc(seen, func(a netip.AddrPort) bool { return !a.IsValid() })
	slices.SortFunc(seen, func(a, b netip.AddrPort) int { return int(a.Port()) - int(b.Port()) })
	s.client.Log.Info("asked fresh supernodes", "asked", servers, "seen", seen)
	return seen
}

// follow remembers the last port that a box in sequence gave, the zero value if
// it is not in sequence, and returns those that come next.
func (s *Service) follow(last netip.AddrPort) (next []netip.AddrPort) {
	s.mu.Lock()
	s.last = last
	s.mu.Unlock()
	for i := 1; last.IsValid() && i <= predictedPorts && int(last.Port())+i < 1<<16; i++ {
		next = append(next, netip.AddrPortFrom(last.Addr(), last.Port()+uint16(i)))
	}
	return next
}

// ahead says whether a box in sequence gave one port after another, not more
// than half of all ports later.
func ahead(before, after netip.AddrPort) bool {
	return before.Addr() == after.Addr() && int16(after.Port()-before.Port()) > 0
}

// fresh takes up to so many STUN servers that were not asked in this way while
// the box may still know them.
func (s *Service) fresh(want int) []netip.AddrPort {
	list := s.client.Servers()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var free []netip.AddrPort
	for _, server := range list {
		server = stun.Alternate(server)
		if at, asked := s.asked[server]; len(free) < want && (!asked || now.Sub(at) > forgotten) {
			free = append(free, server)
			s.asked[server] = now
		}
	}
	return free
}

// offer describes the ways to this end, with fresh credentials. Host addresses
// that are private go along for a peer behind the same box (RFC 8445 §5.1.1).
// It waits until it is known how this end is seen.
func (s *Service) offer(ctx context.Context) (offer, error) {
	reach := s.client.Reach()
	o := offer{UDP: reach.UDP, Public: reach.PublicUDP, External: reach.External, User: rand.Text(), Password: rand.Text()}
	if reach.PublicTCP {
		o.Listen = reach.Listen
		rand.Read(o.Token[:])
	}
	if s.client.Box != nil {
		o.Mapping, o.Filtering = s.client.Box()
	}
	if !o.UDP {
		return o, nil
	}
	local := s.client.Network.Addrs()
	if !o.Public || !slices.Contains(local, o.External.Addr()) {
		if seen := s.client.See(ctx); seen.IsValid() {
			o.External = seen
		} else if ctx.Err() != nil {
			return o, context.Cause(ctx)
		}
		if s.client.Predict != nil && s.client.Predict() {
			// Last of all: whatever is sent to a new place takes a port.
			o.Predicted = s.predict(ctx)
		}
	}
	if o.External.IsValid() {
		o.Candidates = append(o.Candidates, o.External)
	}
	port := s.client.Socket.LocalAddr().Port()
	for _, addr := range local {
		host := netip.AddrPortFrom(addr, port)
		if len(o.Candidates) < maxCandidates && !slices.Contains(o.Candidates, host) {
			o.Candidates = append(o.Candidates, host)
		}
	}
	return o, nil
}

// usable leaves of the other end's offer the addresses that this end can send to,
// and not more of them than an offer may name. Private ones mean nothing beyond their
// own box, which is this end's too where that has the same external address, or the
// address is on this end's own network.
func (o offer) usable(mine offer, nw network.Network) offer {
	unusable := func(a netip.AddrPort) bool {
		return !network.Unicast(a) ||
			a.Addr().IsPrivate() && mine.External.Addr() != o.External.Addr() && !nw.OnLink(a.Addr())
	}
	keep := func(list []netip.AddrPort) []netip.AddrPort {
		return slices.DeleteFunc(slices.Clone(list[:min(len(list), maxCandidates)]), unusable)
	}
	o.Candidates, o.Predicted = keep(o.Candidates), keep(o.Predicted)
	if unusable(o.Listen) {
		o.Listen = netip.AddrPort{}
	}
	return o
}

// near says whether an offer, of which what is not usable was left out, is that of
// an end behind the same box, perhaps.
func (o offer) near(mine offer) bool {
	return o.External.Addr() == mine.External.Addr() ||
		slices.ContainsFunc(o.Candidates, func(a netip.AddrPort) bool { return a.Addr().IsPrivate() })
}
