package probe

import (
	"net/netip"
	"slices"

	"gauntlet/middlebox"
)

// answer is what the sender of a packet that was stopped hears.
func (f fate) answer() string {
	if f.refused() {
		return f.refusal
	}
	return silence
}

// treatment says what a box does to a packet, and how it refuses it.
func (f fate) treatment() string {
	switch {
	case f.at != nil:
		return through
	case f.refused():
		return treatment(f.dropped, true) + " with " + f.refusal
	}
	return treatment(f.dropped, false)
}

// nobody is an endpoint that nothing inside has asked anything from: an external
// one that nobody has, or that of a host behind a firewall.
func (p *prober) nobody(inside netip.AddrPort) netip.AddrPort {
	if len(p.External) > 0 {
		return netip.AddrPortFrom(p.External[0], p.watch.ports(1))
	}
	return inside
}

// tcpUnsolicited measures what becomes of a SYN that nobody asked for (RFC 5382,
// REQ-4), and what its sender hears. Nothing is said of one that gets in.
func (p *prober) tcpUnsolicited(m *Properties) {
	inside, stranger := p.point(p.LAN[1]), p.point(p.WAN[2])
	f := p.segmentFate(stranger, flagSYN, p.nobody(inside.at()))
	if f.at == nil {
		m.TCPUnsolicited, m.TCPRefusal = treatment(f.dropped, f.refused()), f.answer()
	}
}

// stray measures what becomes of a segment in the middle of no connection: from
// outside to an endpoint that has another connection, and from inside.
func (p *prober) stray(m *Properties) {
	c := p.connectionTo(p.LAN[0], p.WAN[0], established)
	m.TCPStray = p.segmentFate(p.point(p.WAN[2]), flagACK, c.external).treatment()
	to := p.point(p.WAN[0])
	m.TCPStrayOutward = p.segmentFate(p.point(p.LAN[0]), flagACK, to.at()).treatment()
}

// stoppedAnswers measures what the inside hears of packets that a box stops on their
// way out: of protocols that don't pass, and to hosts that are out of reach.
// Each is a word for all; "" where nothing is stopped.
func (p *prober) stoppedAnswers(tcpPasses bool) (udp, tcp string) {
	var answers [2][]string
	if !p.udpPasses {
		if f := p.fate(p.udp(p.LAN[0]), p.udp(p.WAN[0]).at()); f.at == nil {
			answers[0] = append(answers[0], f.answer())
		}
	}
	if !tcpPasses {
		if f := p.segmentFate(p.point(p.LAN[0]), flagSYN, p.point(p.WAN[0]).at()); f.at == nil {
			answers[1] = append(answers[1], f.answer())
		}
	}
	for _, t := range p.Denied {
		for _, port := range append(slices.Clone(t.Ports), anyPort) {
			to := netip.AddrPortFrom(t.Addr, port)
			if p.udpPasses {
				if f := p.fate(p.udp(p.LAN[0]), to); p.within(f.dropped) {
					answers[0] = append(answers[0], f.answer())
				}
			}
			if tcpPasses {
				if f := p.segmentFate(p.point(p.LAN[0]), flagSYN, to); p.within(f.dropped) {
					answers[1] = append(answers[1], f.answer())
				}
			}
		}
	}
	return each(answers[0]), each(answers[1])
}

// tcpPerEndpoint is perEndpoint for TCP: a SYN of a peer to which another
// endpoint has a connection is stopped, by a rule that logs or with an answer.
func (p *prober) tcpPerEndpoint() bool {
	c := p.connectionTo(p.LAN[0], p.WAN[1], established)
	for _, at := range p.LAN {
		bystander := p.connectionTo(at, p.WAN[0], established)
		f := p.segmentFate(c.outside, flagSYN, bystander.external)
		if p.err != nil || f.at != nil || f.vanished() {
			return false
		}
	}
	return true
}

// tcpDeniedInbound says which of the targets can neither answer nor open a
// connection to an endpoint inside that has tried to connect to them, and are
// stopped by a rule that logs, or answered by the box itself. It is nil where no
// target can send.
func (p *prober) tcpDeniedInbound() (list []string) {
	for _, t := range p.Denied {
		if t.Space == nil {
			continue
		}
		if list == nil {
			list = []string{}
		}
		c, target := p.connectionTo(p.LAN[0], p.WAN[0], established), p.point(Host{t.Space, t.Addr})
		if p.err != nil {
			return nil
		}
		outside, flags := c.external, uint8(flagSYN)
		if f := p.segmentFate(c.inside, flagSYN, target.local); f.at == receiver(target) {
			outside, flags, target.ack = f.from, flagSYN|flagACK, c.inside.next
		}
		if f := p.segmentFate(target, flags, outside); f.at == nil && (p.within(f.dropped) || f.dropped == nil && f.refused()) {
			list = append(list, t.Name)
		}
	}
	slices.Sort(list)
	return list
}

// stops says whether some of a protocol is stopped on its way out.
func stops(chain []middlebox.Behaviour, protocol middlebox.Protocol) bool {
	if !passes(chain, middlebox.Service{Protocol: protocol}) {
		return true
	}
	return slices.ContainsFunc(chain, func(b middlebox.Behaviour) bool {
		return slices.ContainsFunc(b.Deny, func(d middlebox.Deny) bool { return d.Protocol == "" || d.Protocol == protocol })
	})
}
