package probe

import (
	"net/netip"

	"gauntlet/middlebox"
)

// samples is how many endpoints in a row the choice of ports is judged by, with
// as many steps from one to the next of the same external address, less one, and
// paritySamples by how many where the first look as if parity were kept: ports
// chosen at random do so once in 2^12 times, and in 2^36 with all.
const (
	samples       = 12
	paritySamples = 36
)

// blockSpan is the widest range of ports that is taken for a block of one
// internal address (RFC 7422 §3 divides all ports among hundreds of
// subscribers).
const blockSpan = 4096

// ports says how external ports are chosen (RFC 4787 §4.2), from endpoints of
// one host that have ports of both parities in a row.
func (p *prober) ports() string {
	to := p.udp(p.WAN[0])
	return p.portsBy(func(port uint16) netip.AddrPort { return p.observe(p.udpAt(p.LAN[0], port), to) })
}

// portsBy says it by what external endpoints internal ports of one host get.
func (p *prober) portsBy(external func(uint16) netip.AddrPort) string {
	var seen []mapped
	look := func(n int) middlebox.Ports {
		var next, left uint16
		for p.err == nil && (len(seen) < n || len(seen)-addresses(seen) < samples-1) {
			if left == 0 {
				next, left = p.watch.ports(n), uint16(n)
			}
			seen = append(seen, mapped{next, external(next)})
			next, left = next+1, left-1
		}
		if p.err != nil {
			return ""
		}
		return portsOf(seen)
	}
	found := look(samples)
	if found == middlebox.ParityPorts {
		found = look(paritySamples)
	}
	return string(found)
}

// mapped is an internal port and the external endpoint that it got.
type mapped struct {
	inside  uint16
	outside netip.AddrPort
}

// addresses is how many external addresses some endpoints have.
func addresses(seen []mapped) int {
	all := map[netip.Addr]bool{}
	for _, m := range seen {
		all[m.outside.Addr()] = true
	}
	return len(all)
}

// portsOf names the way in which external ports were chosen for internal ones,
// in order. Each external address has a sequence of its own.
func portsOf(seen []mapped) middlebox.Ports {
	preserved, sequential, parity := 0, 0, true
	last, least, most := map[netip.Addr]uint16{}, seen[0].outside.Port(), seen[0].outside.Port()
	for _, m := range seen {
		address, port := m.outside.Addr(), m.outside.Port()
		if m.inside == port {
			preserved++
		}
		parity = parity && m.inside%2 == port%2
		if before, ok := last[address]; ok && port == before+1 {
			sequential++
		}
		last[address] = port
		least, most = min(least, port), max(most, port)
	}
	switch {
	case preserved >= len(seen)-2: // a port that is taken already can't be preserved
		return middlebox.PreservePorts
	case sequential >= len(seen)-len(last)-1: // one step may be the return to the first port of all
		return middlebox.SequentialPorts
	case parity:
		return middlebox.ParityPorts
	case most-least < blockSpan:
		return middlebox.BlockPorts
	}
	return middlebox.RandomPorts
}
