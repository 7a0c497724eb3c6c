package probe

import (
	"net/netip"
	"slices"

	"gauntlet/middlebox"
)

// stranger is where a packet goes that nobody inside has asked for: to a host
// behind a firewall, or to an external address.
func (p *prober) stranger(at netip.AddrPort) netip.AddrPort {
	if len(p.External) > 0 {
		return netip.AddrPortFrom(p.External[0], at.Port())
	}
	return at
}

// inbound says of which of the protocols that don't pass outward nothing gets
// in either.
func (p *prober) inbound(tcpPasses bool) (stopped []string) {
	if !tcpPasses {
		if l := p.listen(p.LAN[1], 0); p.err == nil {
			if !p.attempt(p.WAN[2], 0, p.stranger(l.local)).connected {
				stopped = append(stopped, string(middlebox.TCP))
			}
			l.close()
		}
	}
	if !p.udpPasses {
		if at := p.udp(p.LAN[1]); p.fate(p.udp(p.WAN[2]), p.stranger(at.at())).at == nil {
			stopped = append(stopped, string(middlebox.UDP))
		}
	}
	return stopped
}

// deniedInbound says from which of the targets no datagram gets in to an
// endpoint inside that has sent to it before, or has tried to.
// It is nil where no target can send.
func (p *prober) deniedInbound() (list []string) {
	for _, t := range p.Denied {
		if t.Space == nil {
			continue
		}
		if list == nil {
			list = []string{}
		}
		inside, target := p.udp(p.LAN[0]), p.udp(Host{t.Space, t.Addr})
		outside := p.observe(inside, p.udp(p.WAN[0]))
		if f := p.fate(inside, target.at()); f.at == target {
			outside = f.from
		}
		if !p.reaches(target, outside, inside) {
			list = append(list, t.Name)
		}
	}
	slices.Sort(list)
	return list
}
