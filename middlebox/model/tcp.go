package model

import (
	"errors"
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// flowKey is a TCP connection as the outside sees it.
type flowKey struct {
	external, peer netip.AddrPort
}

// connection is a TCP connection that began inside, or, on a box that lets all
// in, anywhere.
type connection struct {
	inside   netip.AddrPort
	answered bool // a segment has come back
	ending   bool // it was reset, or an end has said that it ends
	ends     time.Duration
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// life is how long a connection is remembered after a segment (RFC 5382 §5,
// REQ-5).
func (b *Box) life(c *connection) time.Duration {
	if c.ending || !c.answered {
		return orDefault(b.behaviour.TCPTransitory, middlebox.DefaultTCPTransitory)
	}
	established := orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	if b.behaviour.TCPIdle > 0 {
		return min(established, b.behaviour.TCPIdle)
	}
	return established
}

func (b *Box) connection(k flowKey) *connection {
	if c := b.tcp[k]; c != nil && c.ends > b.now {
		return c
	}
	return nil
}

// opens says whether a segment may begin a connection: a SYN, or anything on a
// box that takes connections up in the middle.
func (b *Box) opens(p Packet) bool {
	return p.Flags&(SYN|ACK|RST|FIN) == SYN || b.behaviour.TCPIdle == 0 && p.Flags&(SYN|RST|FIN) == 0
}

// segmentOut handles a TCP segment from inside to outside.
func (b *Box) segmentOut(p Packet, choose Chooser) (Fate, error) {
	external := p.From
	if b.behaviour.Translates() {
		m := b.mappings[b.key(middlebox.TCP, p.From, p.To)]
		if m == nil || m.ends <= b.now {
			if !b.opens(p) {
				return b.stray(p), nil
			}
			if !b.allows(p) {
				return drop(middlebox.NotAllowedRule), nil
			}
			var err error
			m, err = b.mapping(middlebox.TCP, p.From, p.To, choose)
			if errors.Is(err, ErrNoPort) {
				return drop(middlebox.NoPortRule), nil
			}
			if err != nil {
				return Fate{}, err
			}
		}
		external = m.external
	}
	k := flowKey{external, p.To}
	c := b.connection(k)
	if c == nil {
		if !b.opens(p) {
			return b.stray(p), nil
		}
		if !b.allows(p) {
			return drop(middlebox.NotAllowedRule), nil
		}
		c = &connection{inside: p.From}
		b.tcp[k] = c
	}
	c.ending = c.ending || p.Flags&(RST|FIN) != 0
	c.ends = b.now + b.life(c)
	if m := b.mapped(middlebox.TCP, external); m != nil || b.behaviour.Translates() {
		b.external[middlebox.TCP][external].ends = max(c.ends, b.external[middlebox.TCP][external].ends)
	}
	p.From = external
	return Fate{Packet: p, To: Outside}, nil
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

// segmentIn handles a TCP segment from outside.
func (b *Box) segmentIn(p Packet) Fate {
	c := b.connection(flowKey{p.To, p.From})
	if c == nil && b.behaviour.Translates() {
		return b.toBox(p)
	}
	if rule := b.stopped(p); rule != "" {
		return drop(rule)
	}
	if c == nil {
		if b.filtering != middlebox.FilterEndpointIndependent {
			return drop(middlebox.UnsolicitedRule)
		}
		c = &connection{inside: p.To}
		b.tcp[flowKey{p.To, p.From}] = c
	}
	c.answered = true
	c.ending = c.ending || p.Flags&(RST|FIN) != 0
	c.ends = b.now + b.life(c)
	p.To = c.inside
	return Fate{Packet: p, To: Inside}
}

// hairpinSegment handles a segment between hosts inside that use external
// endpoints. TCP is filtered address-and-port-dependent: a simultaneous open
// gets through (RFC 5382 §4, REQ-2).
func (b *Box) hairpinSegment(p Packet, to *mapping, choose Chooser) (Fate, error) {
	m, err := b.mapping(middlebox.TCP, p.From, p.To, choose)
	if errors.Is(err, ErrNoPort) {
		return drop(middlebox.NoPortRule), nil
	}
	if err != nil {
		return Fate{}, err
	}
	out := flowKey{m.external, p.To}
	if b.connection(out) == nil {
		b.tcp[out] = &connection{inside: p.From}
	}
	b.tcp[out].ends = b.now + b.life(b.tcp[out])
	m.ends = max(m.ends, b.tcp[out].ends)
	back := b.connection(flowKey{p.To, m.external})
	if back == nil {
		return drop(middlebox.UnsolicitedRule), nil
	}
	back.answered = true
	return Fate{Packet: Packet{Protocol: p.Protocol, From: m.external, To: to.key.inside, Flags: p.Flags}, To: Inside}, nil
}
