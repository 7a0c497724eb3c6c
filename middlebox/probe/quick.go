package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"gauntlet/middlebox"
)

// Quick measures what decides through which paths packets get: the mapping to
// three destinations, the filtering from three sources, ports, hairpin, punch
// first, what is blocked and denied. It takes some milliseconds.
func Quick(ctx context.Context, w *Watch, s Subject) (Properties, error) {
	p := begin(ctx, w, s)
	measured := p.quick()
	if err := p.end(); err != nil {
		return Properties{}, fmt.Errorf("measure: %w", err)
	}
	return measured, nil
}

func (p *prober) quick() (m Properties) {
	if p.udpPasses {
		m.Mapping = p.mapping()
		m.Filtering = p.filtering()
		m.PunchFirst = yes(p.punchFirst())
		if m.Mapping != mappingNone {
			m.Ports = p.ports()
			hairpin, _ := p.hairpin()
			m.Hairpin = yes(hairpin)
		}
		m.Unsolicited = p.unsolicited()
	}
	tcpPasses := p.tcp(&m)
	if p.rewritten {
		m.Inbound = rewritten
	}
	p.stopped(&m, tcpPasses)
	m.BlockInbound = p.inbound(tcpPasses)
	m.Deny = p.denied(tcpPasses)
	return m
}

// ranks orders the words of RFC 4787 §4.1 and §5 by how much depends on the
// destination, or the source.
var ranks = []string{
	mappingNone,
	string(middlebox.MapEndpointIndependent), string(middlebox.MapAddressDependent), string(middlebox.MapAddressAndPortDependent),
}

// more returns the one of two words that depends on more.
func more(a, b string) string {
	if slices.Index(ranks, a) >= slices.Index(ranks, b) {
		return a
	}
	return b
}

// mapping is RFC 5780 §4.3 from two endpoints: to an address, to another port
// of it, to another address. A box that chooses at random may choose the same
// twice, for one endpoint but hardly for both.
func (p *prober) mapping() string {
	found := mappingNone
	for range 2 {
		from := p.udp(p.LAN[0])
		one := p.observe(from, p.udp(p.WAN[0]))
		port := p.observe(from, p.udp(p.WAN[0]))
		address := p.observe(from, p.udp(p.WAN[1]))
		found = more(found, mappingOf(from.at(), one, port, address))
	}
	return found
}

// mappingOf says what external endpoints an internal one has towards an
// endpoint, another port there and another address.
func mappingOf(inside, one, port, address netip.AddrPort) string {
	switch {
	case one != port:
		return string(middlebox.MapAddressAndPortDependent)
	case one != address:
		return string(middlebox.MapAddressDependent)
	case one != inside:
		return string(middlebox.MapEndpointIndependent)
	}
	return mappingNone
}

// filtering is RFC 5780 §4.4 with sockets in place of a server's: towards an
// endpoint that has sent to one of them, the two that it has not sent to try
// first. The other address is one that nobody inside has ever sent to.
func (p *prober) filtering() string {
	inside, asked := p.udp(p.LAN[0]), p.udp(p.WAN[0])
	port, address := p.udp(p.WAN[0]), p.udp(p.WAN[2])
	outside := p.observe(inside, asked)
	fromAddress := p.reaches(address, outside, inside)
	fromPort := p.reaches(port, outside, inside)
	if !p.reaches(asked, outside, inside) && p.err == nil {
		p.fail(fmt.Errorf("the answer from %v to %v does not get in", asked.at(), outside))
	}
	switch {
	case fromAddress:
		return string(middlebox.FilterEndpointIndependent)
	case fromPort:
		return string(middlebox.FilterAddressDependent)
	}
	return string(middlebox.FilterAddressAndPortDependent)
}

// punchFirst says whether hole punching works when the peer's packet comes
// before ours: we still send from the port that a third party has seen, and
// the peer's next packet gets in.
func (p *prober) punchFirst() bool {
	inside, server, peer := p.udp(p.LAN[0]), p.udp(p.WAN[0]), p.udp(p.WAN[1])
	outside := p.observe(inside, server)
	p.fate(peer, outside)
	seen := p.observe(inside, peer)
	return p.reaches(peer, seen, inside) && seen == outside
}

// hairpin says whether a host inside reaches another by its external endpoint,
// and which source the other sees (RFC 4787 §6, REQ-9). Both have sent towards
// the other before, since a box may filter there too.
func (p *prober) hairpin() (bool, string) {
	first, second, server := p.udp(p.LAN[0]), p.udp(p.LAN[1]), p.udp(p.WAN[0])
	of := map[*socket]netip.AddrPort{first: p.observe(first, server), second: p.observe(second, server)}
	f := p.fate(first, of[second])
	if f.at != second {
		p.fate(second, of[first])
		f = p.fate(first, of[second])
	}
	switch {
	case f.at != second || p.err != nil:
		return false, ""
	case f.from == of[first]:
		return true, external
	case slices.Contains(p.External, f.from.Addr()):
		return true, anotherExternal
	case f.from == first.local:
		return true, internal
	}
	return true, other
}

// unsolicited says what becomes of a datagram that nobody asked for: to an
// external port that nobody has, or to a host behind a firewall. "" is that it
// gets in.
func (p *prober) unsolicited() string {
	f := p.fate(p.udp(p.WAN[2]), p.nobody(p.udp(p.LAN[1]).at()))
	if f.at != nil {
		return ""
	}
	return treatment(f.dropped, f.refused())
}

// treatment is the scenario file's word for what stops a packet. A box that
// rejects does so by a rule, which logs; one that confirms has no such rule
// and answers for itself.
func treatment(dropped *Drop, refused bool) string {
	switch {
	case dropped != nil && refused:
		return string(middlebox.RejectUnsolicited)
	case dropped != nil:
		return string(middlebox.DropUnsolicited)
	case refused:
		return string(middlebox.ConfirmUnsolicited)
	}
	return vanishes
}
