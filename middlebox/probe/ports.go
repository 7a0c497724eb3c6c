package probe

import (
	"slices"

	"gauntlet/middlebox"
)

// samples is how many endpoints in a row the choice of ports is judged by, and
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
	first := p.watch.ports(paritySamples)
	var inside, outside []uint16
	look := func(n int) middlebox.Ports {
		for i := uint16(len(inside)); int(i) < n; i++ {
			from := p.udpAt(p.LAN[0], first+i)
			inside = append(inside, first+i)
			outside = append(outside, p.observe(from, to).Port())
		}
		return portsOf(inside, outside)
	}
	found := look(samples)
	if found == middlebox.ParityPorts {
		found = look(paritySamples)
	}
	return string(found)
}

// portsOf names the way in which external ports were chosen for internal ones,
// in order.
func portsOf(inside, outside []uint16) middlebox.Ports {
	preserved, sequential, parity := 0, 0, true
	for i := range inside {
		if inside[i] == outside[i] {
			preserved++
		}
		parity = parity && inside[i]%2 == outside[i]%2
		if i > 0 && outside[i] == outside[i-1]+1 {
			sequential++
		}
	}
	switch {
	case preserved >= len(inside)-2: // a port that is taken already can't be preserved
		return middlebox.PreservePorts
	case sequential >= len(inside)-2: // one step may be the return to the first port of all
		return middlebox.SequentialPorts
	case parity:
		return middlebox.ParityPorts
	case slices.Max(outside)-slices.Min(outside) < blockSpan:
		return middlebox.BlockPorts
	}
	return middlebox.RandomPorts
}
