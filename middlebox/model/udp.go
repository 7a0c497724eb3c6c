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
	if b.exceeds(p.From.Addr(), Outside) {
		return drop(middlebox.UDPRateRule), nil
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
		b.sent(m)
		b.seen(p.From, m.external, p.To, true)
		b.contact(middlebox.UDP, p.From, m.external, p.To)
		p.From = m.external
	} else {
		b.seen(p.From, p.From, p.To, true)
		b.contact(middlebox.UDP, p.From, p.From, p.To)
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
		if b.exceeds(p.To.Addr(), Inside) {
			return drop(middlebox.UDPRateRule)
		}
		if !b.letsIn(middlebox.UDP, p.To, p.To, p.From) {
			return drop(middlebox.UnsolicitedRule)
		}
		b.seen(p.To, p.To, p.From, false)
		b.answered(p.To, p.To, p.From)
		return Fate{Packet: p, To: Inside}
	}
	m := b.open(p.To)
	if s := b.sessions[flowKey{p.To, p.From}]; b.tracked() && !s.own && s.ends > b.now {
		m = &mapping{key: mappingKey{inside: s.inside}, external: p.To}
	}
	if m != nil && b.behaviour.Refresh == middlebox.RefreshOutbound {
		b.came(m) // whoever sent it, and whether it gets any further
	}
	if m == nil || b.behaviour.FilteringOf(middlebox.UDP) == middlebox.FilterAddressAndPortDependent && !b.letsIn(middlebox.UDP, m.key.inside, m.external, p.From) {
		return b.toBox(p)
	}
	internal := p
	internal.To = m.key.inside
	if rule := b.stopped(internal); rule != "" {
		return drop(rule)
	}
	if b.exceeds(internal.To.Addr(), Inside) {
		return drop(middlebox.UDPRateRule)
	}
	if !b.letsIn(middlebox.UDP, m.key.inside, m.external, p.From) {
		return drop(middlebox.UnsolicitedRule)
	}
	b.seen(m.key.inside, m.external, p.From, false)
	if b.behaviour.Refresh != middlebox.RefreshOutbound {
		b.came(m)
		b.answered(m.key.inside, m.external, p.From)
	}
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
	if b.tracked() {
		b.confirm(p)
		return Fate{Packet: p, Local: true}
	}
	return drop(middlebox.UnsolicitedRule)
}

// hairpin handles what comes from inside to an external address of the box
// (RFC 4787 §6): out by the sender's mapping, in by the receiver's, and
// filtered on its way in.
func (b *Box) hairpin(p Packet, choose Chooser) (Fate, error) {
	if p.Protocol == middlebox.TCP && b.behaviour.Hairpin {
		return b.hairpinSegment(p, b.mapped(middlebox.TCP, p.To), choose)
	}
	to := b.open(p.To)
	if !b.behaviour.Hairpin || to == nil {
		return drop(middlebox.HairpinRule), nil
	}
	if b.behaviour.Refresh == middlebox.RefreshOutbound {
		b.came(to)
	}
	if rule := b.stoppedInside(p, to.key.inside); rule != "" {
		return drop(rule), nil
	}
	m, err := b.mapping(p.Protocol, p.From, p.To, choose)
	if errors.Is(err, ErrNoPort) {
		return drop(middlebox.NoPortRule), nil
	}
	if err != nil {
		return Fate{}, err
	}
	b.sent(m)
	b.contact(middlebox.UDP, p.From, m.external, p.To)
	p.From = m.external
	if !b.letsIn(middlebox.UDP, to.key.inside, to.external, p.From) {
		return drop(middlebox.UnsolicitedRule), nil
	}
	p.To = to.key.inside
	return Fate{Packet: p, To: Inside}, nil
}

// stoppedInside names the rule that stops the first packet of a flow that turns
// around, or "": to the police, it goes to the receiver inside.
func (b *Box) stoppedInside(p Packet, receiver netip.AddrPort) string {
	p.To = receiver
	if rule := b.stopped(p); rule != "" {
		return rule
	}
	if p.Protocol == middlebox.UDP && (b.exceeds(p.From.Addr(), Outside) || b.exceeds(p.To.Addr(), Inside)) {
		return middlebox.UDPRateRule
	}
	if !b.allows(p) {
		return middlebox.NotAllowedRule
	}
	return ""
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

// contact remembers that an internal endpoint has sent to a peer: of a UDP flow
// that may be no stream, for as long as its session.
func (b *Box) contact(p middlebox.Protocol, inside, external, peer netip.AddrPort) {
	ends := b.now + b.udpTimeout()
	switch {
	case p == middlebox.TCP:
		ends = b.now + orDefault(b.behaviour.TCPEstablished, middlebox.DefaultTCPEstablished)
	case b.behaviour.UDPUnreplied > 0:
		ends = b.sessions[flowKey{external, peer}].ends
	}
	b.contacted[b.peer(p, inside, external, peer)] = ends
}

// answered remembers that a peer was let in.
func (b *Box) answered(inside, external, peer netip.AddrPort) {
	b.contact(middlebox.UDP, inside, external, peer)
}

// letsIn says whether a packet from a peer passes the filter.
func (b *Box) letsIn(p middlebox.Protocol, inside, external, peer netip.AddrPort) bool {
	return b.behaviour.FilteringOf(p) == middlebox.FilterEndpointIndependent || b.contacted[b.peer(p, inside, external, peer)] > b.now
}
