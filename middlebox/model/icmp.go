package model

import (
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// session is a UDP flow, as connection tracking knows it: errors about it find
// the way that its packets went.
type session struct {
	inside      netip.AddrPort
	began, ends time.Duration
	replied     bool
	number      int  // how many flows had begun with it
	own         bool // of the box itself, and nobody inside
}

// seen keeps the session of a datagram that passes. What comes in uninvited is
// one only where the answer leaves by the external endpoint that it came to.
func (b *Box) seen(inside, external, peer netip.AddrPort, outward bool) {
	k := flowKey{external, peer}
	apart := b.behaviour.Translates() && b.behaviour.Mapping != middlebox.MapEndpointIndependent
	s, ok := b.sessions[k]
	lives := ok && s.ends > b.now
	if !outward && apart && !lives {
		return
	}
	if !lives || s.inside != inside {
		b.begun++
		s = session{inside: inside, began: b.now, number: b.begun}
	}
	s.ends = b.now + b.udpTimeout()
	if stream := s.replied && b.now-s.began > middlebox.UDPStream; b.behaviour.UDPUnreplied > 0 && !stream {
		s.ends = b.now + b.behaviour.UDPUnreplied
	}
	s.replied = s.replied || !outward
	b.sessions[k] = s
}

// HandleError takes an ICMP error (RFC 5508 §4) that comes from a side, and the
// packet it is about as that side knows it. In the Fate it is about the packet
// as the other side knows that.
func (b *Box) HandleError(from Side, about Packet, now time.Duration) Fate {
	b.now = max(b.now, now)
	if from == Outside {
		if inside, ok := b.sender(about); ok {
			about.From = inside
			return Fate{Packet: about, To: Inside}
		}
		udp, tcp := b.behaviour.FilteringOf(middlebox.UDP), b.behaviour.FilteringOf(middlebox.TCP)
		switch {
		case b.tracked():
			return Fate{Packet: about, Local: true}
		case b.behaviour.Translates(), udp != middlebox.FilterEndpointIndependent:
			return drop(middlebox.UnsolicitedRule)
		case tcp != middlebox.FilterEndpointIndependent:
			return Fate{Packet: about, To: Inside} // what is no TCP isn't filtered
		}
		return Fate{Packet: about, To: Inside}
	}
	if external, ok := b.receiver(about); ok {
		about.To = external
	} else if b.behaviour.Translates() {
		return drop(middlebox.UntranslatedRule)
	}
	return Fate{Packet: about, To: Outside}
}

// sender returns who inside has sent a packet that the outside knows.
func (b *Box) sender(about Packet) (netip.AddrPort, bool) {
	k := flowKey{about.From, about.To}
	if about.Protocol == middlebox.TCP {
		if c := b.tcp.external[k]; c != nil && c.ends > b.now {
			return c.inside, true
		}
		return netip.AddrPort{}, false
	}
	s := b.sessions[k]
	return s.inside, s.ends > b.now && !s.own
}

// receiver returns where a packet that the inside has got was sent to.
func (b *Box) receiver(about Packet) (netip.AddrPort, bool) {
	if about.Protocol == middlebox.TCP {
		if c := b.tcp.inside[flowKey{about.To, about.From}]; c != nil && c.ends > b.now {
			return c.external, true
		}
		return netip.AddrPort{}, false
	}
	for k, s := range b.sessions {
		if s.inside == about.To && k.peer == about.From && s.ends > b.now {
			return k.near, true
		}
	}
	return netip.AddrPort{}, false
}
