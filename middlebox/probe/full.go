package probe

import (
	"context"
	"fmt"
	"net/netip"

	"gauntlet/middlebox"
)

// Full measures what Quick does, and all else that needs no waiting: port
// collision, filtering for each endpoint by itself, the source of hairpinned
// packets, ICMP errors, TCP's mapping and unsolicited SYNs, the pool of
// external addresses. What has to be waited for is left to Timers.
func Full(ctx context.Context, w *Watch, s Subject) (Properties, error) {
	p := begin(ctx, w, s)
	m := p.quick()
	if p.udpPasses {
		p.full(&m)
	}
	if m.TCPFiltering != "" {
		m.TCPMapping = p.tcpMapping()
		if m.TCPMapping != mappingNone {
			m.TCPPorts = p.tcpPorts()
		}
		m.TCPUnsolicited = p.tcpUnsolicited()
	}
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
	m.ICMPErrors = yes(p.icmpErrors())
	m.DenyInbound = p.deniedInbound()
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

// icmpErrors says whether the error for a packet to a port that nobody has,
// outside, comes back to the endpoint that sent it (RFC 5508, REQ-3).
func (p *prober) icmpErrors() bool {
	return p.fate(p.udp(p.LAN[0]), netip.AddrPortFrom(p.WAN[0].Addr, p.watch.ports(1))).refused
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

// tcpUnsolicited says what becomes of a SYN that nobody asked for (RFC 5382,
// REQ-4). "" is that it gets in.
func (p *prober) tcpUnsolicited() string {
	l := p.listen(p.LAN[1], 0)
	if p.err != nil {
		return ""
	}
	defer l.close()
	target := l.local
	if len(p.External) > 0 {
		target = netip.AddrPortFrom(p.External[0], p.watch.ports(1))
	}
	a := p.attempt(p.WAN[2], 0, target)
	if a.connected {
		return ""
	}
	return treatment(a.dropped, a.refused)
}

// tcpPorts is ports for TCP, by connections to one server.
func (p *prober) tcpPorts() string {
	l := p.listen(p.WAN[0], 0)
	if p.err != nil {
		return ""
	}
	defer l.close()
	first := p.watch.ports(paritySamples)
	var inside, outside []uint16
	look := func(n int) middlebox.Ports {
		for i := len(inside); i < n && p.err == nil; i++ {
			port := first + uint16(i)
			d, a := p.connect(p.LAN[0], port, l.local)
			if p.err != nil {
				break
			}
			if !a.connected {
				p.fail(fmt.Errorf("from %v port %d to %v: %v; expected a connection", p.LAN[0].Addr, port, l.local, a))
			} else {
				inside, outside = append(inside, port), append(outside, (<-l.seen).Port())
			}
			p.fail(d.close())
		}
		if p.err != nil {
			return ""
		}
		return portsOf(inside, outside)
	}
	found := look(samples)
	if found == middlebox.ParityPorts {
		found = look(paritySamples)
	}
	return string(found)
}
