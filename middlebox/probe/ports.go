package probe

import (
	"slices"

	"gauntlet/middlebox"
)

// samples is how many endpoints in a row the choice of ports is judged by.
// That ports chosen at random all have the internal ones' parity happens once
// in 4096 times; that they look like anything else here, hardly ever.
const samples = 12

// blockSpan is the widest range of ports that is taken for a block of one
// internal address (RFC 7422 §3 divides all ports among hundreds of
// subscribers).
const blockSpan = 4096

// ports says how external ports are chosen (RFC 4787 §4.2), from endpoints of
// one host that have ports of both parities in a row.
func (p *prober) ports() string {
	to := p.udp(p.WAN[0])
	first := p.watch.ports(samples)
	var inside, outside []uint16
	for i := range uint16(samples) {
		from := p.udpAt(p.LAN[0], first+i)
		inside = append(inside, first+i)
		outside = append(outside, p.observe(from, to).Port())
	}
	return string(portsOf(inside, outside))
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
