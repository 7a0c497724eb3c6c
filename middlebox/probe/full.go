package probe

import (
	"context"
	"fmt"
	"net/netip"

	"gauntlet/middlebox"
)

// Full measures what Quick does, and all else that needs no waiting: port
// collision, filtering for each endpoint by itself, the source of hairpinned
// packets, ICMP errors, TCP's mapping and stray segments, how the box refuses
// what it stops, the pool of external addresses. What has to be waited for is
// left to Timers.
func Full(ctx context.Context, w *Watch, s Subject) (Properties, error) {
	p := begin(ctx, w, s)
	m := p.quick()
	if p.udpPasses {
		p.full(&m)
	}
	tcpPasses := m.TCPFiltering != "" // which only TCP that passes gives
	if tcpPasses {
		p.fullTCP(&m)
	}
	p.icmp(&m, tcpPasses)
	m.StoppedRefusal, m.TCPStoppedRefusal = p.stoppedAnswers(tcpPasses)
	if err := p.end(); err != nil {
		return Properties{}, fmt.Errorf("measure: %w", err)
	}
	return m, nil
}

func (p *prober) full(m *Properties) {
	if m.Mapping != mappingNone {
		_, m.HairpinSource = p.hairpin()
		m.PortCollision = p.collision()
		if len(p.External) > 1 {
			m.Pool = p.pool()
		}
	}
	if m.Filtering != string(middlebox.FilterEndpointIndependent) {
		m.PerEndpoint = yes(p.perEndpoint())
	}
	if f := p.fate(p.udp(p.WAN[2]), p.nobody(p.udp(p.LAN[1]).at())); f.at == nil {
		m.Refusal = f.answer()
	}
	m.DenyInbound = p.deniedInbound()
}

func (p *prober) fullTCP(m *Properties) {
	m.TCPMapping = p.tcpMapping()
	if m.TCPMapping != mappingNone {
		m.TCPPorts = p.tcpPorts()
	}
	if m.TCPFiltering != string(middlebox.FilterEndpointIndependent) {
		m.TCPPerEndpoint = yes(p.tcpPerEndpoint())
	}
	p.tcpUnsolicited(m)
	p.stray(m)
	m.TCPDenyInbound = p.tcpDeniedInbound()
}

// collision has two hosts inside use the same port to the same server. Each
// must have an external endpoint of its own and get its own answers (RFC 4787
// §4.2.1; REQ-3 forbids to share).
func (p *prober) collision() string {
	port := p.watch.ports(1)
	first, second, server := p.udpAt(p.LAN[0], port), p.udpAt(p.LAN[1], port), p.udp(p.WAN[0])
	one, two := p.observe(first, server), p.observe(second, server)
	if one != two && p.reaches(server, one, first) && p.reaches(server, two, second) {
		return distinct
	}
	return shared
}

// perEndpoint says whether what one endpoint has sent opens the way to it
// alone (RFC 4787 §5): neither to another port of its host nor to another host.
func (p *prober) perEndpoint() bool {
	server, peer := p.udp(p.WAN[0]), p.udp(p.WAN[1])
	p.observe(p.udp(p.LAN[0]), peer)
	for _, at := range p.LAN {
		bystander := p.udp(at)
		if p.reaches(peer, p.observe(bystander, server), bystander) {
			return false
		}
	}
	return true
}

// pool says whether a host inside keeps one external address (RFC 4787 §4.1,
// REQ-2), by many flows of two hosts. Arbitrary choices all look paired once in
// 2^46 times.
func (p *prober) pool() string {
	for _, at := range p.LAN {
		addresses := map[netip.Addr]bool{}
		for i := range 2 * samples {
			addresses[p.observe(p.udp(at), p.udp(p.WAN[i%len(p.WAN)])).Addr()] = true
		}
		if len(addresses) > 1 {
			return string(middlebox.ArbitraryPool)
		}
	}
	return string(middlebox.PairedPool)
}

// tcpMapping is mapping for TCP (RFC 5382, REQ-1): from one endpoint to an
// address, another port of it, another address.
func (p *prober) tcpMapping() string {
	found := mappingNone
	for range 2 {
		port := p.watch.ports(1)
		var seen [3]netip.AddrPort
		for i, to := range []Host{p.WAN[0], p.WAN[0], p.WAN[1]} {
			l := p.listen(to, 0)
			if p.err != nil {
				return ""
			}
			defer l.close()
			d, a := p.connect(p.LAN[0], port, l.local)
			if p.err != nil {
				return ""
			}
			defer func() { p.fail(d.close()) }()
			if !a.connected {
				p.fail(fmt.Errorf("from %v port %d to %v: %v; expected a connection", p.LAN[0].Addr, port, l.local, a))
				return ""
			}
			seen[i] = <-l.seen
		}
		found = more(found, mappingOf(netip.AddrPortFrom(p.LAN[0].Addr, port), seen[0], seen[1], seen[2]))
	}
	return found
}

// tcpPorts is ports for TCP, by connections to one server.
func (p *prober) tcpPorts() string {
	l := p.listen(p.WAN[0], 0)
	if p.err != nil {
		return ""
	}
	defer l.close()
	return p.portsBy(func(port uint16) (outside netip.AddrPort) {
		d, a := p.connect(p.LAN[0], port, l.local)
		if p.err != nil {
			return outside
		}
		if !a.connected {
			p.fail(fmt.Errorf("from %v port %d to %v: %v; expected a connection", p.LAN[0].Addr, port, l.local, a))
		} else {
			outside = <-l.seen
		}
		p.fail(d.close())
		return outside
	})
}
