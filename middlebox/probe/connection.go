package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// station returns the raw sockets of a host.
func (p *prober) station(at Host) *station {
	if s, ok := p.stations[at.Addr]; ok || p.err != nil {
		return s
	}
	s, err := p.watch.station(at)
	if err != nil {
		p.fail(err)
		return nil
	}
	if p.stations == nil {
		p.stations = map[netip.Addr]*station{}
	}
	p.stations[at.Addr] = s
	return s
}

// point opens a TCP endpoint.
func (p *prober) point(at Host) *point {
	s := p.station(at)
	if p.err != nil {
		return nil
	}
	e, err := p.watch.point(at, s, 0)
	if err != nil {
		p.fail(err)
		return nil
	}
	p.points = append(p.points, e)
	return e
}

// ping returns when an echo request has got out and its answer in: what was sent
// before is not on its way any more. No box stops ICMP.
func (p *prober) ping() error {
	sent, err := p.station(p.LAN[0]).echo(p.WAN[0].Addr)
	if err == nil {
		_, err = sent.await(p.ctx, sent.arrived)
	}
	if err != nil {
		return fmt.Errorf("echo request from %v to %v: %w", p.LAN[0].Addr, p.WAN[0].Addr, err)
	}
	return nil
}

// sendSegment sends one.
func (p *prober) sendSegment(from *point, flags uint8, to netip.AddrPort) *packet {
	if p.err != nil {
		return nil
	}
	sent, err := from.send(flags, to)
	p.fail(err)
	return sent
}

// segmentFate sends a segment and returns all that happened to it.
func (p *prober) segmentFate(from *point, flags uint8, to netip.AddrPort) fate {
	sent := p.sendSegment(from, flags, to)
	return p.becomes(sent, from, to)
}

// connection is a TCP connection, or part of one, that begins inside. When its
// last segment passed the box lies between two times, however late this
// goroutine is.
type connection struct {
	inside, outside *point
	external        netip.AddrPort // the endpoint inside, as the one outside sees it
	earliest, made  time.Time
}

// phase is how far a connection has come.
type phase int

const (
	halfOpen    phase = iota // a SYN has gone out, and nothing come back
	established              // so has its answer, and the answer to that
	halfClosed               // after that, the end inside has sent a FIN
)

// connectionTo opens a connection from a host inside to one outside, as far as a
// phase.
func (p *prober) connectionTo(from, to Host, how phase) connection {
	for try := 1; p.err == nil; try++ {
		c, err := p.tryConnection(from, to, how)
		if err == nil {
			return c
		}
		if try == fenceTries || !errors.Is(err, errStopped) { // a short timer may have ended between two segments
			p.fail(fmt.Errorf("connect from %v to %v: %w", c.inside.at(), c.outside.at(), err))
		}
	}
	return connection{}
}

// errStopped is a segment's of a connection in the making that does not arrive.
var errStopped = errors.New("a segment was stopped")

func (p *prober) tryConnection(from, to Host, how phase) (connection, error) {
	c := connection{inside: p.point(from), outside: p.point(to)}
	pass := func(from *point, flags uint8, to netip.AddrPort, arrives *point) error {
		c.earliest = time.Now()
		sent := p.sendSegment(from, flags, to)
		if p.err != nil {
			return p.err
		}
		f, err := sent.await(p.ctx, sent.fated)
		if err != nil {
			return err
		}
		if f.at != arrives {
			return fmt.Errorf("%w: %v", errStopped, f)
		}
		if from == c.inside {
			c.external = f.from
		}
		arrives.ack = from.next
		c.made = time.Now()
		return nil
	}
	if p.err != nil {
		return c, p.err
	}
	if err := pass(c.inside, flagSYN, c.outside.local, c.outside); err != nil || how == halfOpen {
		return c, err
	}
	if err := pass(c.outside, flagSYN|flagACK, c.external, c.inside); err != nil {
		return c, err
	}
	if err := pass(c.inside, flagACK, c.outside.local, c.outside); err != nil || how == established {
		return c, err
	}
	return c, pass(c.inside, flagFIN|flagACK, c.outside.local, c.outside)
}

// answers says whether the next segment from outside gets in.
func (p *prober) answers(c connection, how phase) bool {
	if p.err != nil {
		return false
	}
	flags := uint8(flagACK | flagPSH)
	if how == halfOpen {
		flags = flagSYN | flagACK
	}
	return p.reached(p.segmentFate(c.outside, flags, c.external), c.outside, c.external, c.inside)
}
