package model

import (
	"errors"
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// outward handles what comes from inside.
func (b *Box) outward(p Packet, choose Chooser) (Fate, error) {
	if b.isWAN(p.To.Addr()) {
		return b.hairpin(p, choose)
	}
	if rule := b.stopped(p); rule != "" {
		return drop(rule), nil
	}
	if p.Protocol == middlebox.TCP {
		return b.segmentOut(p, choose)
	}
	if !b.allows(p) {
		return drop(middlebox.NotAllowedRule), nil
	}
	if b.behaviour.Translates() {
		m, err := b.mapping(middlebox.UDP, p.From, p.To, choose)
		if errors.Is(err, ErrNoPort) {
			return drop(middlebox.NoPortRule), nil
		}
		if err != nil {
			return Fate{}, err
		}
		m.ends = b.now + b.udpTimeout()
		b.contact(middlebox.UDP, p.From, m.external, p.To)
		b.seen(p.From, m.external, p.To, true)
		p.From = m.external
	} else {
		b.contact(middlebox.UDP, p.From, p.From, p.To)
		b.seen(p.From, p.From, p.To, true)
	}
	return Fate{Packet: p, To: Outside}, nil
}

// inward handles what comes from outside.
func (b *Box) inward(p Packet) Fate {
	if p.Protocol == middlebox.TCP {
		return b.segmentIn(p)
	}
	if !b.behaviour.Translates() {
		if rule := b.stopped(p); rule != "" {
			return drop(rule)
		}
		if !b.letsIn(middlebox.UDP, p.To, p.To, p.From) {
			return drop(middlebox.UnsolicitedRule)
		}
		b.answered(p.To, p.To, p.From)
		b.seen(p.To, p.To, p.From, false)
		return Fate{Packet: p, To: Inside}
	}
	m := b.mapped(middlebox.UDP, p.To)
	if m == nil || b.behaviour.FilteringOf(middlebox.UDP) == middlebox.FilterAddressAndPortDependent && !b.letsIn(middlebox.UDP, m.key.inside, m.external, p.From) {
		return b.toBox(p)
	}
	internal := p
	internal.To = m.key.inside
	if rule := b.stopped(internal); rule != "" {
		return drop(rule)
	}
	if !b.letsIn(middlebox.UDP, m.key.inside, m.external, p.From) {
		return drop(middlebox.UnsolicitedRule)
	}
	if b.behaviour.Refresh != middlebox.RefreshOutbound {
		m.ends = b.now + b.udpTimeout()
		b.answered(m.key.inside, m.external, p.From)
	}
	b.seen(m.key.inside, m.external, p.From, false)
	return Fate{Packet: internal, To: Inside}
}

// toBox ends a packet from outside that is for nobody inside. Blocking comes
// first there, and denying doesn't.
func (b *Box) toBox(p Packet) Fate {
	for _, blocked := range b.behaviour.Block {
		if blocked == p.Protocol {
			return drop(middlebox.BlockRule(blocked))
		}
	}
	if b.behaviour.Unsolicited == middlebox.ConfirmUnsolicited {
		return Fate{Packet: p, Local: true}
	}
	return drop(middlebox.UnsolicitedRule)
}

// hairpin handles what comes from inside to an external address of the box
// (RFC 4787 §6): out by the sender's mapping, in by the receiver's, and
// filtered on its way in.
func (b *Box) hairpin(p Packet, choose Chooser) (Fate, error) {
	to := b.mapped(p.Protocol, p.To)
	if p.Protocol == middlebox.TCP && b.behaviour.Hairpin {
		return b.hairpinSegment(p, to, choose)
	}
	if !b.behaviour.Hairpin || to == nil {
		return drop(middlebox.HairpinRule), nil
	}
	m, err := b.mapping(p.Protocol, p.From, p.To, choose)
	if errors.Is(err, ErrNoPort) {
		return drop(middlebox.NoPortRule), nil
	}
	if err != nil {
		return Fate{}, err
	}
	m.ends = b.now + b.udpTimeout()
	b.contact(middlebox.UDP, p.From, m.external, p.To)
	p.From = m.external
	if !b.letsIn(middlebox.UDP, to.key.inside, to.external, p.From) {
		return drop(middlebox.UnsolicitedRule), nil
	}
	p.To = to.key.inside
	return Fate{Packet: p, To: Inside}, nil
}

func (b *Box) udpTimeout() time.Duration {
	if b.behaviour.UDPTimeout == 0 {
		return middlebox.DefaultUDPTimeout
	}
	return b.behaviour.UDPTimeout
}

func (b *Box) peer(p middlebox.Protocol, inside, external, peer netip.AddrPort) peerKey {
	switch b.behaviour.FilteringOf(p) {
	case middlebox.FilterAddressDependent:
		return peerKey{protocol: p, inside: inside, peer: peer.Addr()}
	case middlebox.FilterAddressAndPortDependent:
		return peerKey{protocol: p, inside: inside, external: external, peer: peer.Addr(), port: peer.Port()}
	}
	return peerKey{}
}

// contact remembers that an internal endpoint has sent to a peer.
func (b *Box) contact(p middlebox.Protocol, inside, external, peer netip.AddrPort) {
	life := b.udpTimeout()
	if p == middlebox.TCP {
		life = orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	}
	b.contacted[b.peer(p, inside, external, peer)] = b.now + life
}

// answered remembers that a peer was let in.
func (b *Box) answered(inside, external, peer netip.AddrPort) {
	b.contact(middlebox.UDP, inside, external, peer)
}

// letsIn says whether a packet from a peer passes the filter.
func (b *Box) letsIn(p middlebox.Protocol, inside, external, peer netip.AddrPort) bool {
	return b.behaviour.FilteringOf(p) == middlebox.FilterEndpointIndependent || b.contacted[b.peer(p, inside, external, peer)] > b.now
}
