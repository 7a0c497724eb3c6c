package model

import (
	"errors"
	"net/netip"

	"gauntlet/middlebox"
)

// flowKey is a TCP connection as one side sees it.
type flowKey struct {
	near, peer netip.AddrPort
}

// connections are those of a box, by their endpoint inside and by the external
// one.
type connections struct {
	inside, external map[flowKey]*connection
}

func newConnections() connections {
	return connections{map[flowKey]*connection{}, map[flowKey]*connection{}}
}

func (c connections) add(n *connection) {
	c.inside[flowKey{n.inside, n.peer}] = n
	c.external[flowKey{n.external, n.peer}] = n
}

func (c connections) forget(n *connection) {
	delete(c.inside, flowKey{n.inside, n.peer})
	delete(c.external, flowKey{n.external, n.peer})
	delete(c.inside, flowKey{n.called, n.external})
}

// known returns the connection of a segment, nil if there is none, after it has
// seen the segment. fits is false if the segment doesn't fit in.
func (b *Box) known(of map[flowKey]*connection, k flowKey, s segment, from Side) (c *connection, fits bool) {
	c = of[k]
	if c == nil || c.ends <= b.now {
		return nil, true
	}
	held := c.phase == opening && s == syn && !c.replied // a SYN that is sent again prolongs nothing
	switch c.judge(s, from) {
	case invalid:
		return c, false
	case again:
		b.tcp.forget(c)
		return nil, true
	case over:
		b.tcp.forget(c)
	case belongs:
		if !held {
			c.ends = b.now + b.life(c)
		}
	}
	return c, true
}

// begin makes a connection of its first segment.
func (b *Box) begin(inside, external, peer netip.AddrPort, s segment, from Side) *connection {
	b.begun++
	c := &connection{inside: inside, external: external, peer: peer, number: b.begun, began: from, phase: opening, last: s, lastFrom: from}
	c.numbers[from] = true
	if s == ack {
		c.phase, c.numbers[1-from] = established, true
	}
	c.ends = b.now + b.life(c)
	b.tcp.add(c)
	return c
}

// opens says whether a segment may begin a connection: a SYN, or an ACK on a
// box that takes connections up in the middle.
func (b *Box) opens(s segment) bool { return s == syn || s == ack && b.behaviour.TCPIdle == 0 }

// segmentOut handles a TCP segment from inside to outside.
func (b *Box) segmentOut(p Packet, choose Chooser) (Fate, error) {
	s := segmentOf(p.Flags)
	c, fits := b.known(b.tcp.inside, flowKey{p.From, p.To}, s, Inside)
	if !fits || c == nil && !b.opens(s) {
		return b.stray(p), nil
	}
	if c == nil {
		if !b.allows(p) {
			return drop(middlebox.NotAllowedRule), nil
		}
		external := p.From
		if b.behaviour.Translates() {
			m, err := b.mapping(middlebox.TCP, p.From, p.To, choose)
			if errors.Is(err, ErrNoPort) {
				return drop(middlebox.NoPortRule), nil
			}
			if err != nil {
				return Fate{}, err
			}
			external = m.external
		}
		if other := b.tcp.external[flowKey{external, p.To}]; other != nil && other.ends > b.now {
			return drop(Untracked), nil // outside, the two would be one
		}
		c = b.begin(p.From, external, p.To, s, Inside)
	}
	b.keep(c, s, true)
	b.called(c)
	p.From = c.external
	return Fate{Packet: p, To: Outside}, nil
}

// keep has a segment keep the mapping of its connection: as long as an
// established connection lives, if it is sent outward in one; once the
// connection is closing, as long as that may take; and a connection in the making
// prolongs nothing. One that began outside keeps the mapping that it came in by,
// in both directions.
func (b *Box) keep(c *connection, s segment, outward bool) {
	c.closing = c.closing || s == fin || s == rst
	m, established := b.mappings[b.key(middlebox.TCP, c.inside, c.peer)], c.replied && outward
	if c.began == Outside {
		m, established = b.mapped(middlebox.TCP, c.external), c.assured
	}
	switch {
	case m == nil:
	case c.closing:
		m.ends = b.now + b.transitoryLife()
	case established:
		m.ends = b.now + orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	case c.began == Inside && outward && m.ends <= b.now:
		m.ends = b.now + b.transitoryLife()
	}
}

// called remembers whom the inside has sent to in a connection: not for long
// while nothing has come back.
func (b *Box) called(c *connection) {
	key := b.peer(middlebox.TCP, c.inside, c.external, c.peer)
	if c.replied {
		b.contact(middlebox.TCP, c.inside, c.external, c.peer)
	} else if b.contacted[key] <= b.now {
		b.contacted[key] = b.now + b.transitoryLife()
	}
}

// stray is a segment from inside that belongs to no connection and begins
// none.
func (b *Box) stray(p Packet) Fate {
	switch {
	case b.behaviour.TCPIdle > 0:
		return drop(middlebox.TCPIdleRule)
	case b.behaviour.Translates():
		return drop(middlebox.UntranslatedRule)
	}
	return Fate{Packet: p, To: Outside}
}

// segmentIn handles a TCP segment from outside. Beyond what belongs to a
// connection that the box knows, the filtering decides about a SYN alone.
func (b *Box) segmentIn(p Packet) Fate {
	s := segmentOf(p.Flags)
	c, fits := b.known(b.tcp.external, flowKey{p.To, p.From}, s, Outside)
	if !b.behaviour.Translates() {
		return b.segmentThrough(p, s, c, fits)
	}
	if c != nil && fits {
		p.To = c.inside
		if rule := b.stopped(p); rule != "" {
			return drop(rule)
		}
		b.keep(c, s, false)
		return Fate{Packet: p, To: Inside}
	}
	m := b.mapped(middlebox.TCP, p.To)
	if m == nil || !fits || s != syn || b.behaviour.FilteringOf(middlebox.TCP) == middlebox.FilterAddressAndPortDependent {
		return b.toBox(p)
	}
	p.To = m.key.inside
	if rule := b.stopped(p); rule != "" {
		return drop(rule)
	}
	if !b.letsIn(middlebox.TCP, m.key.inside, m.external, p.From) {
		return drop(middlebox.UnsolicitedRule)
	}
	if other := b.tcp.inside[flowKey{m.key.inside, p.From}]; other != nil && other.ends > b.now {
		return drop(middlebox.UnsolicitedRule) // inside, the two would be one
	}
	b.begin(m.key.inside, m.external, p.From, s, Outside)
	return Fate{Packet: p, To: Inside}
}

// segmentThrough handles it on a box that doesn't translate.
func (b *Box) segmentThrough(p Packet, s segment, c *connection, fits bool) Fate {
	if rule := b.stopped(p); rule != "" {
		return drop(rule)
	}
	if (!fits || c == nil && !b.opens(s)) && b.behaviour.TCPIdle > 0 {
		return drop(middlebox.TCPIdleRule)
	}
	if c != nil && fits {
		return Fate{Packet: p, To: Inside}
	}
	begins := fits && b.opens(s)
	switch b.behaviour.FilteringOf(middlebox.TCP) {
	case middlebox.FilterAddressAndPortDependent:
		return drop(middlebox.UnsolicitedRule)
	case middlebox.FilterAddressDependent:
		if !begins || s != syn || !b.letsIn(middlebox.TCP, p.To, p.To, p.From) {
			return drop(middlebox.UnsolicitedRule)
		}
	}
	if begins {
		b.begin(p.To, p.To, p.From, s, Outside)
	}
	return Fate{Packet: p, To: Inside}
}

// hairpinSegment handles a segment between hosts inside that use external
// endpoints: out by the sender's mapping, in by the receiver's, and filtered on
// its way in, where it must be answered too. A simultaneous open gets through
// (RFC 5382 §4, REQ-2). The receiver's mapping is nil if there is none.
func (b *Box) hairpinSegment(p Packet, to *mapping, choose Chooser) (Fate, error) {
	s, key, from := segmentOf(p.Flags), flowKey{p.From, p.To}, Inside
	if c := b.tcp.inside[key]; c != nil && c.inside != p.From {
		from = Outside // the one who was called
	}
	c, fits := b.known(b.tcp.inside, key, s, from)
	if !fits || c == nil && (s != syn || to == nil) {
		return drop(middlebox.HairpinRule), nil
	}
	var receiver netip.AddrPort
	switch {
	case c == nil:
		receiver = to.key.inside
	case from == Inside:
		receiver = c.called
	default:
		receiver = c.inside
	}
	if c == nil {
		if rule := b.stoppedInside(p, receiver); rule != "" {
			return drop(rule), nil
		}
	}
	var m *mapping
	var external netip.AddrPort
	if turns := b.behaviour.Mapping != middlebox.MapEndpointIndependent; turns && from == Outside {
		m, external = b.mapped(middlebox.TCP, c.peer), c.peer // it answers from where it was called
	} else {
		var err error
		m, err = b.mapping(middlebox.TCP, p.From, p.To, choose)
		if errors.Is(err, ErrNoPort) {
			return drop(middlebox.NoPortRule), nil
		}
		if err != nil {
			return Fate{}, err
		}
		external = m.external
	}
	if m != nil {
		m.ends = b.now + orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	}
	b.contact(middlebox.TCP, p.From, external, p.To)
	if !b.letsIn(middlebox.TCP, receiver, p.To, external) {
		return drop(middlebox.UnsolicitedRule), nil
	}
	if c == nil && b.takenBetween(receiver, external) {
		return drop(Untracked), nil
	}
	if c == nil {
		c = b.begin(p.From, external, p.To, s, Inside)
		c.called = receiver
		b.tcp.inside[flowKey{receiver, external}] = c
	}
	return Fate{Packet: Packet{Protocol: p.Protocol, From: external, To: receiver, Flags: p.Flags}, To: Inside}, nil
}

// takenBetween says whether a host inside has a connection already with another
// one's external endpoint, so that connection tracking knows the two by it.
func (b *Box) takenBetween(inside, external netip.AddrPort) bool {
	c := b.tcp.inside[flowKey{inside, external}]
	return b.behaviour.Mapping != middlebox.MapEndpointIndependent && c != nil && c.ends > b.now
}
