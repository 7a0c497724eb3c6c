package probe

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
)

// live is a flow through the box that both ends have sent in.
type live struct {
	protocol         middlebox.Protocol
	inside, external netip.AddrPort
	server           netip.AddrPort
}

// numbers are those of the protocols in IPv4's header.
var numbers = map[middlebox.Protocol]uint8{middlebox.UDP: unix.IPPROTO_UDP, middlebox.TCP: unix.IPPROTO_TCP}

// ways are the directions of ICMP errors, as the properties name them.
const (
	inward  = "inward"
	outward = "outward"
)

// icmp measures what becomes of ICMP errors (RFC 5508, REQ-3 to REQ-5): of those
// about a live flow, which must get through with what they quote translated, and
// of those about nothing.
func (p *prober) icmp(m *Properties, tcpPasses bool) {
	for _, at := range []Host{p.LAN[0], p.WAN[0]} { // where errors arrive
		p.station(at)
	}
	var flows []live
	if p.udpPasses {
		from, server := p.udp(p.LAN[0]), p.udp(p.WAN[0])
		external := p.observe(from, server)
		p.reaches(server, external, from)
		flows = append(flows, live{middlebox.UDP, from.at(), external, server.at()})
	}
	if tcpPasses {
		c := p.connectionTo(p.LAN[0], p.WAN[0], established)
		flows = append(flows, live{middlebox.TCP, c.inside.at(), c.external, c.outside.at()})
	}
	var in, out []string
	for _, f := range flows {
		if p.errorsIn(f) && (f.protocol != middlebox.UDP || p.errorOfPort()) {
			m.ICMPErrors = append(m.ICMPErrors, string(f.protocol)+" "+inward)
		}
		if p.errorsOut(f) {
			m.ICMPErrors = append(m.ICMPErrors, string(f.protocol)+" "+outward)
		}
		f.inside, f.external = beside(f.inside), beside(f.external)
		in = append(in, p.complaint(p.WAN[0], f.inwards()).treatment())
		out = append(out, p.complaint(p.LAN[0], f.outwards()).treatment())
	}
	slices.Sort(m.ICMPErrors)
	m.ICMPUnrelated, m.ICMPUnrelatedOutward = each(in), each(out)
}

// beside is an endpoint that has sent nothing.
func beside(e netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(e.Addr(), e.Port()^1) }

// each writes several words that should be one.
func each(words []string) string {
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}

// inwards is an error about what the end inside has sent, as the outside knows
// that; outwards is one about what it was sent, as the inside knows that.
func (f live) inwards() icmpError {
	return icmpError{kind: icmpUnreachable, code: icmpPortUnreachable, protocol: numbers[f.protocol], from: f.external, to: f.server}
}

func (f live) outwards() icmpError {
	return icmpError{kind: icmpUnreachable, code: icmpPortUnreachable, protocol: numbers[f.protocol], from: f.server, to: f.inside}
}

// complaint sends an error from a host to the sender of what it is about, and
// returns what became of it.
func (p *prober) complaint(from Host, e icmpError) fate {
	s := p.station(from)
	if p.err != nil {
		return fate{}
	}
	sent, err := s.complain(e, e.from.Addr())
	p.fail(err)
	return p.becomes(sent, s, e.from)
}

// errorsIn says whether errors about what the end inside has sent come to its
// host, as being about what it has sent, from the far end and from a router on the
// way.
func (p *prober) errorsIn(f live) bool {
	return p.errors(f.inwards(), [2]Host{p.WAN[0], p.WAN[1]}, func(sender netip.Addr, e icmpError) (Host, netip.Addr, icmpError) {
		e.from = f.inside
		return p.LAN[0], sender, e
	})
}

// errorsOut says whether errors about what the end inside was sent get out, from
// the external address, as being about what was sent to the external endpoint,
// from that end and from a router on the way.
func (p *prober) errorsOut(f live) bool {
	return p.errors(f.outwards(), p.LAN, func(sender netip.Addr, e icmpError) (Host, netip.Addr, icmpError) {
		if f.inside != f.external {
			sender = f.external.Addr()
		}
		e.to = f.external
		return p.WAN[0], sender, e
	})
}

// errors sends an error from the end that was sent to, and that the time to live
// was exceeded from a router before it, and says whether both arrive as they must.
func (p *prober) errors(e icmpError, by [2]Host, must func(netip.Addr, icmpError) (Host, netip.Addr, icmpError)) bool {
	for i, from := range by {
		if i == 1 {
			e.kind, e.code = icmpTimeExceeded, 0
		}
		got := p.complaint(from, e)
		at, sender, want := must(from.Addr, e)
		if got.at == nil || got.at.at().Addr() != at.Addr || got.from.Addr() != sender || !got.about.equal(want) {
			return false
		}
	}
	return p.err == nil
}

// errorOfPort says whether the error for a packet to a port that nobody has,
// outside, comes back to the endpoint that sent it.
func (p *prober) errorOfPort() bool {
	return p.fate(p.udp(p.LAN[0]), netip.AddrPortFrom(p.WAN[0].Addr, p.watch.ports(1))).refusal == portUnreachable
}
