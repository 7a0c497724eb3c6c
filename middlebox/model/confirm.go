package model

import (
	"net/netip"

	"gauntlet/middlebox"
)

// tracked says whether the box leaves its ports to connection tracking, which
// has no mappings but flows: two internal endpoints may have one external one,
// towards different peers.
func (b *Box) tracked() bool { return b.behaviour.Unsolicited == middlebox.ConfirmUnsolicited }

// ofFlow returns what stands for a mapping there: of the flow that there is, or of
// one that begins. An endpoint keeps what its latest flow has if the mapping is
// endpoint-independent, unless a flow to that peer has it already: then it gets
// another, and so does whatever it begins after that.
func (b *Box) ofFlow(p middlebox.Protocol, inside, peer netip.AddrPort, choose Chooser) (*mapping, error) {
	latest, number := netip.AddrPort{}, 0
	note := func(external netip.AddrPort, n int) {
		if n > number {
			latest, number = external, n
		}
	}
	if p == middlebox.TCP {
		for k, c := range b.tcp.external {
			if c.inside == inside && c.ends > b.now {
				note(k.near, c.number)
			}
		}
	} else {
		for k, s := range b.sessions {
			if s.own || s.inside != inside || s.ends <= b.now {
				continue
			}
			if k.peer == peer {
				return &mapping{external: k.near}, nil
			}
			note(k.near, s.number)
		}
	}
	if b.behaviour.Mapping == middlebox.MapEndpointIndependent && number > 0 && !b.inUse(p, latest, peer) {
		return &mapping{external: latest}, nil
	}
	external, err := b.choose(Choice{Inside: inside, box: b, protocol: p, peer: peer}, choose)
	return &mapping{external: external}, err
}

// inUse says whether a flow between an external endpoint and a peer lives.
func (b *Box) inUse(p middlebox.Protocol, external, peer netip.AddrPort) bool {
	if p == middlebox.TCP {
		c := b.tcp.external[flowKey{external, peer}]
		return c != nil && c.ends > b.now
	}
	return b.sessions[flowKey{external, peer}].ends > b.now
}

// confirm remembers a datagram that the box takes for itself, whose flow is in
// the way of one from inside that needs the same external endpoint towards the
// same peer. Of TCP nothing stays: the box answers with a reset.
func (b *Box) confirm(p Packet) {
	if p.Protocol == middlebox.UDP {
		b.sessions[flowKey{p.To, p.From}] = session{own: true, began: b.now, ends: b.now + orDefault(b.behaviour.UDPUnreplied, b.udpTimeout())}
	}
}
