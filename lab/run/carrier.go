package run

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/topo"
)

const (
	// startsWith is how many packets of the load's size have to come to the callee
	// from one host before media has begun.
	startsWith = 5
	// lookBack is the time over which it is counted who carries: 21 packets of the
	// load each way.
	lookBack = 300 * time.Millisecond
	// fewestCarried is how many of them a relay must have passed on. A machine that
	// is busy sends them late.
	fewestCarried = 5
)

// carrier watches the media of one call on the wire, at the interfaces of its two
// ends, and knows through which host it goes.
type carrier struct {
	caller, callee string
	names          map[netip.Addr]string // of the hosts on the internet
	own            map[string][]netip.Addr

	mu     sync.Mutex
	recent []carried
	news   chan struct{}              // closed, and made anew, with every packet
	from   map[netip.Addr][]time.Time // the first packets that came to the callee
	begun  time.Time
	start  chan struct{} // closed when media has begun
}

// carried is a packet of the load at one of the ends.
type carried struct {
	at   time.Time
	end  string
	out  bool
	peer netip.Addr
}

func newCarrier(p *topo.Plan, caller, callee string) *carrier {
	c := &carrier{
		caller: caller, callee: callee, names: map[netip.Addr]string{}, own: map[string][]netip.Addr{},
		from: map[netip.Addr][]time.Time{}, start: make(chan struct{}), news: make(chan struct{}),
	}
	for _, h := range p.Hosts {
		if h.Name == caller || h.Name == callee {
			c.own[h.Name] = h.Addrs
		} else if h.Behind == "" {
			for _, a := range h.Addrs {
				c.names[a] = h.Name
			}
		}
	}
	return c
}

// see is told of every packet.
func (c *carrier) see(tap string, at time.Time, p evidence.Packet) {
	place, _, _ := strings.Cut(tap, "/")
	own, ok := c.own[place]
	if !ok || !media.IsLoad(p) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := carried{at: at, end: place, peer: p.Tuple.Src.Addr()}
	if seen.out = slices.Contains(own, seen.peer); seen.out {
		seen.peer = p.Tuple.Dst.Addr()
	}
	c.recent = append(c.recent, seen)
	close(c.news)
	c.news = make(chan struct{})
	old := slices.IndexFunc(c.recent, func(s carried) bool { return at.Sub(s.at) < 2*lookBack })
	c.recent = c.recent[max(old, 0):]
	if c.begun.IsZero() && place == c.callee && !seen.out {
		came := append(c.from[seen.peer], at)
		c.from[seen.peer] = came
		if len(came) == startsWith {
			c.begun = came[0]
			close(c.start)
		}
	}
}

// began is when the first media packet came to the callee; c.start must be
// closed.
func (c *carrier) began() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// await waits until there is one relay that carries, which is at once unless media
// pauses or moves.
func (c *carrier) await(ctx context.Context) (string, error) {
	for {
		c.mu.Lock()
		news := c.news
		c.mu.Unlock()
		name, err := c.relay(time.Now())
		if err == nil {
			return name, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// relay is the one host that has carried the media lately: it got packets of the
// caller's, and the callee got packets from it.
func (c *carrier) relay(now time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, gave := map[netip.Addr]int{}, map[netip.Addr]int{}
	for _, s := range c.recent {
		switch {
		case now.Sub(s.at) > lookBack:
		case s.end == c.caller && s.out:
			got[s.peer]++
		case s.end == c.callee && !s.out:
			gave[s.peer]++
		}
	}
	var names []string
	for addr, n := range got {
		if name, ok := c.names[addr]; ok && n >= fewestCarried && gave[addr] >= fewestCarried {
			names = append(names, name)
		}
	}
	switch slices.Sort(names); len(names) {
	case 0:
		return "", errors.New("no relay carried the media of the call")
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("several relays carried the media of the call: %s", strings.Join(names, ", "))
}
