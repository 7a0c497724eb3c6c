package call

import (
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory/freedom"
	"gauntlet/nodes/relay"
)

// paths decide on which route an end sends its media. They know no network and
// no clock: routes come and go, beats are counted, and the answer is a route.
//
// A direct route is better than any relay. Relays are taken in order and never
// gone back from: one that was given up stays so, and whoever hears the other
// end on a later one than its own goes there.
type paths struct {
	direct  *route // nil until a pair works
	dead    bool   // the direct route was given up
	legs    map[int]*route
	ready   map[int]relay.Transport // legs that the other end has open
	bad     map[int]bool            // relays given up
	relayed bool                    // relays may carry: checks have had their time
	current *route

	heard uint64 // by the current route, at the last beat
	quiet int    // beats since it brought anything
	proof bool   // it has brought something since it is current

	lossy int // reports in a row of too much loss
}

func newPaths() paths {
	return paths{legs: map[int]*route{}, ready: map[int]relay.Transport{}, bad: map[int]bool{}}
}

// usable says whether media can go over a relay: both ends have a leg there.
func (p *paths) usable(i int) bool {
	_, ready := p.ready[i]
	return ready && p.legs[i] != nil && !p.bad[i]
}

// best is the route to send on now, nil for none.
func (p *paths) best() *route {
	if p.direct != nil && !p.dead {
		return p.direct
	}
	if !p.relayed {
		return p.current
	}
	next := (*route)(nil)
	for i, leg := range p.legs {
		if p.usable(i) && i >= p.first() && (next == nil || i < next.relay) {
			next = leg
		}
	}
	if next == nil {
		return p.current // better than none, perhaps
	}
	return next
}

// first is the first relay that may still be used.
func (p *paths) first() int {
	if p.current != nil && p.current.relay >= 0 {
		return p.current.relay
	}
	return 0
}

// use makes a route the current one, and says whether that is a change.
func (p *paths) use(r *route) bool {
	if r == nil || r == p.current {
		return false
	}
	p.current = r
	p.heard, p.quiet, p.proof, p.lossy = r.heard.Load(), 0, false, 0
	return true
}

// follow goes to the latest relay on which the other end was heard, if that is
// later than this end's.
func (p *paths) follow() bool {
	if p.current == nil || p.current.relay < 0 {
		return false
	}
	var latest *route
	for i, leg := range p.legs {
		if i > p.current.relay && leg.heard.Load() > 0 && (latest == nil || i > latest.relay) {
			latest = leg
		}
	}
	if latest == nil {
		return false
	}
	delete(p.bad, latest.relay)
	return p.use(latest)
}

// Patience with a current route that brings nothing, in beats. A relay's is
// short, so that a call over one that stalls is soon whole again (C5); a route
// that is new may have to wait for the other end to follow. Beats are counted
// where they happen, so that an end that itself had no processor for a while
// doesn't take that for silence.
const (
	beat          = 25 * time.Millisecond
	patience      = int(400 * time.Millisecond / beat)
	directQuiet   = int(time.Second / beat)
	patienceFresh = int(time.Second / beat)
)

// silent counts a beat, and says whether the current route has been silent for
// too long.
func (p *paths) silent() bool {
	if p.current == nil {
		return false
	}
	if heard := p.current.heard.Load(); heard != p.heard {
		p.heard, p.quiet, p.proof = heard, 0, true
		return false
	}
	p.quiet++
	switch {
	case p.current.relay < 0:
		return p.quiet >= directQuiet
	case p.proof:
		return p.quiet >= patience
	}
	return p.quiet >= patienceFresh
}

// giveUp marks a route as not to be used any more.
func (p *paths) giveUp(r *route) {
	if r.relay < 0 {
		p.dead = true
		return
	}
	p.bad[r.relay] = true
}

// Loss above lossThreshold in lossReports reports in a row makes an end give
// its relay up, if there is another: about twice what a voice codec conceals
// (papers.md §6), and far above what a path without fault loses.
const (
	lossThreshold  = 0.20
	lossReports    = 2
	reportInterval = 500 * time.Millisecond
)

// reported takes the other end's report of what this end sent, and says whether
// the relay loses too much.
func (p *paths) reported(r report) bool {
	if p.current == nil || p.current.relay < 0 || r.Relay != p.current.relay || r.Expected <= 0 {
		return false
	}
	if float64(r.Expected-r.Received) <= lossThreshold*float64(r.Expected) {
		p.lossy = 0
		return false
	}
	p.lossy++
	return p.lossy >= lossReports
}

// claim is the path of media from caller to callee, as this end believes.
func (c *Call) claim(r *route) control.Path {
	me, peer := c.service.client.Cert.Name, c.peer.Name
	if r.relay >= 0 {
		mine, other := control.Leg{From: me, To: r.relayName, Transport: r.transport.String()},
			control.Leg{From: r.relayName, To: peer, Transport: c.paths.ready[r.relay].String()}
		if !c.caller {
			mine.From, mine.To = mine.To, mine.From
			other.From, other.To = other.To, other.From
			mine, other = other, mine
		}
		return control.Path{Path: "relayed", Hops: 1, Carrying: 1, Relays: c.held, Legs: []control.Leg{mine, other}}
	}
	from, to := me, peer
	if !c.caller {
		from, to = to, from
	}
	callee, caller := c.free()
	if r.transport == relay.TCP {
		callee = r.dialled == c.caller
		caller = !callee
	}
	return control.Path{
		Path: freedom.Path(callee, caller), Relays: c.held,
		Legs: []control.Leg{{From: from, To: to, Transport: r.transport.String()}},
	}
}
