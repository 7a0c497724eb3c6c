package model

import (
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// phase is how far a TCP connection has come, as one sees it who watches both
// directions but keeps no windows (RFC 9293 §3.3.2).
type phase int

const (
	unknown     phase = iota
	opening           // a SYN
	crossed           // a SYN of each side (RFC 9293 §3.5, simultaneous open)
	answered          // a SYN-ACK
	established       // an ACK of it
	ending            // a FIN
	halfClosed        // an ACK of it
	lastAck           // a FIN of each side
	waiting           // an ACK of the last: TIME-WAIT
	closed            // a RST
)

// segment is what a segment does for a connection: one thing, whatever else its
// flags say.
type segment int

const (
	nothing segment = iota
	syn
	synAck
	fin
	ack // with or without data
	rst
)

func segmentOf(f Flags) segment {
	switch {
	case f&RST != 0:
		return rst
	case f&(SYN|ACK) == SYN|ACK:
		return synAck
	case f&SYN != 0:
		return syn
	case f&FIN != 0:
		return fin
	case f&ACK != 0:
		return ack
	}
	return nothing
}

// crossedLife is how long a connection lives whose SYNs have crossed, whatever
// the behaviour: that of Linux (nf_conntrack_tcp_timeout_syn_sent2, for which
// there is no sysctl).
const crossedLife = 2 * time.Minute

// connection is a TCP connection as connection tracking sees it.
//
// A box checks windows (nf_conntrack_tcp_be_liberal is 0). The model has none:
// all segments are taken to be in theirs, but for those that acknowledge a side
// that has sent nothing. What is taken up in the middle depends on the behaviour
// (nf_conntrack_tcp_loose is 0 with a TCPIdle, else 1).
type connection struct {
	inside, external, peer netip.AddrPort
	number                 int            // how many flows had begun with it
	began                  Side           // who sent the first segment
	called                 netip.AddrPort // of a connection between hosts inside, the one at the peer's external endpoint

	phase   phase
	replied bool    // whoever was called has sent something
	assured bool    // the handshake was completed, seen from both sides
	numbers [2]bool // of each side, whether a segment of its own has counted
	fins    bool    // it ended by a FIN
	closing bool    // an end has said that it ends, or reset it

	// What the last segment was that counted, or that was let through without
	// counting: the ends may know better.
	last     segment
	lastFrom Side

	crossing  bool // the SYNs crossed, since the last SYN that did not count
	challenge bool // a SYN came between the last FIN and its ACK (RFC 5961 §4)

	ends time.Duration
}

// judgement is what becomes of a segment by its connection.
type judgement int

const (
	belongs judgement = iota
	passes            // it belongs, and prolongs nothing
	invalid           // it doesn't fit
	again             // the connection is over, and the segment is to be seen as the first
	over              // it belongs, and the connection is forgotten
)

// judge sees a segment and moves on.
func (c *connection) judge(s segment, from Side) judgement {
	calling := from == c.began
	next, ok := c.next(s, calling)
	if !ok {
		return invalid
	}
	reopens := next == opening && c.phase >= waiting
	if reopens && (c.fins || c.last == rst && c.lastFrom == from) {
		return again
	}
	if next == unknown || reopens {
		next, ok = c.passOver(s, from, calling)
		if !ok {
			c.replied = c.replied || !calling
			return passes
		}
	}
	if next == waiting && c.phase == lastAck && s == ack && c.lastFrom != from && c.last == syn && c.challenge {
		c.challenge = false
		c.replied = c.replied || !calling
		return passes
	}
	if s != syn && s != rst && !c.numbers[1-from] {
		return invalid // it acknowledges what was never sent
	}
	// A RST says nothing of its sender's numbers after a FIN or another RST, nor
	// where it answers an ACK that made no sense (RFC 5961 §3).
	challenged := c.phase == opening && c.last == ack && c.lastFrom != c.began
	if s != rst || c.phase < ending && !challenged {
		c.numbers[from] = true
	}
	if next == crossed {
		c.crossing = true
	}
	if next == answered && s == ack && !calling && c.crossing {
		next = established
	}
	if c.replied && next == established && (c.phase == answered || c.phase == established) {
		c.assured = true
	}
	c.last, c.lastFrom = s, from
	if next == ending && c.phase != ending {
		c.fins = true
	}
	c.phase = next
	if s == rst && !c.replied {
		return over
	}
	c.replied = c.replied || !calling
	return belongs
}

// next is the phase after a segment of whoever called, or was called. It is
// unknown where the segment is let through without counting; ok is whether it
// fits at all.
func (c *connection) next(s segment, calling bool) (_ phase, ok bool) {
	switch s {
	case syn:
		return c.nextSYN(calling)
	case synAck:
		switch {
		case !calling && (c.phase == opening || c.phase == crossed), calling && (c.phase == crossed || c.phase == answered):
			return answered, true
		}
		return unknown, !calling
	case fin:
		switch c.phase {
		case opening, crossed:
			return unknown, false
		case answered, established:
			return ending, true
		case ending, halfClosed, lastAck:
			return lastAck, true
		}
		return c.phase, true
	case ack:
		switch c.phase {
		case opening, crossed: // it may be an old connection's
			return unknown, !calling
		case answered:
			if calling {
				return established, true
			}
			return answered, true
		case ending, halfClosed:
			return halfClosed, true
		case lastAck, waiting:
			return waiting, true
		}
		return c.phase, true
	case rst:
		return closed, true
	}
	return unknown, false
}

func (c *connection) nextSYN(calling bool) (_ phase, ok bool) {
	switch c.phase {
	case opening:
		if calling {
			return opening, true
		}
		return crossed, true
	case crossed:
		return crossed, true
	case waiting:
		return opening, true
	case closed:
		return opening, calling
	}
	return unknown, calling
}

// passOver lets a segment through that does not count, and returns where the
// connection is after all if it shows that both ends have begun anew.
func (c *connection) passOver(s segment, from Side, calling bool) (phase, bool) {
	if s == synAck && c.last == syn && c.lastFrom != from {
		c.numbers[c.lastFrom] = true
		c.fins, c.challenge, c.crossing = false, false, c.crossing && c.lastFrom != c.began
		return answered, true
	}
	c.last, c.lastFrom = s, from
	if s == syn && calling {
		c.crossing, c.challenge = false, c.phase == lastAck
	}
	return unknown, false
}

// life is how long a connection is remembered after a segment (RFC 5382 §5,
// REQ-5).
func (b *Box) life(c *connection) time.Duration {
	switch c.phase {
	case closed:
		return min(middlebox.TCPReset, b.transitoryLife())
	case waiting:
		return min(middlebox.TCPWaiting, b.transitoryLife())
	case crossed:
		return crossedLife
	case established:
		return b.establishedLife()
	}
	return b.transitoryLife()
}

func (b *Box) transitoryLife() time.Duration {
	return orDefault(b.behaviour.TCPTransitory, middlebox.DefaultTCPTransitory)
}

// establishedLife is the shorter of the two that an established connection has.
func (b *Box) establishedLife() time.Duration {
	life := orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	if b.behaviour.TCPIdle > 0 {
		life = min(life, b.behaviour.TCPIdle)
	}
	return life
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
