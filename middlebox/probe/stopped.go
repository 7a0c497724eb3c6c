package probe

import (
	"fmt"
	"net/netip"
	"slices"

	"gauntlet/middlebox"
)

// attempt connects and returns what became of it, with the connection closed.
func (p *prober) attempt(from Host, port uint16, to netip.AddrPort) attempt {
	d, a := p.connect(from, port, to)
	if d != nil {
		p.fail(d.close())
	}
	return a
}

func (p *prober) connect(from Host, port uint16, to netip.AddrPort) (*dialled, attempt) {
	if p.err != nil {
		return nil, attempt{}
	}
	d, a, err := p.watch.connect(p.ctx, from, port, to, p.barrier())
	p.fail(err)
	return d, a
}

func (p *prober) listen(at Host, port uint16) *listener {
	if p.err != nil {
		return nil
	}
	l, err := p.watch.listen(at, port)
	p.fail(err)
	return l
}

// tcp measures whether TCP passes outward, and who can connect to the endpoint
// inside that has connected outward and listens (RFC 5382 §4.3): the two that
// it has not connected to try, first from an address that nobody inside has
// ever sent to.
func (p *prober) tcp(m *Properties) bool {
	outside := p.listen(p.WAN[0], 0)
	if p.err != nil {
		return false
	}
	defer outside.close()
	port := p.watch.ports(1)
	d, a := p.connect(p.LAN[0], port, outside.local)
	if p.err != nil {
		return false
	}
	defer func() { p.fail(d.close()) }()
	if !a.connected {
		return false
	}
	target, ok := <-outside.seen
	if !ok {
		p.fail(fmt.Errorf("the listener at %v ended", outside.local))
		return false
	}
	inside := p.listen(p.LAN[0], port)
	if p.err != nil {
		return false
	}
	defer inside.close()
	switch {
	case p.connectsIn(p.WAN[2], target, inside):
		m.TCPFiltering = string(middlebox.FilterEndpointIndependent)
	case p.connectsIn(p.WAN[0], target, inside):
		m.TCPFiltering = string(middlebox.FilterAddressDependent)
	default:
		m.TCPFiltering = string(middlebox.FilterAddressAndPortDependent)
	}
	return p.err == nil
}

// connectsIn says whether a host outside can connect to an address and so gets
// to a listener inside.
func (p *prober) connectsIn(from Host, to netip.AddrPort, at *listener) bool {
	source := netip.AddrPortFrom(from.Addr, p.watch.ports(1))
	if !p.attempt(from, source.Port(), to).connected || p.err != nil {
		return false
	}
	if seen, ok := <-at.seen; !ok {
		p.fail(fmt.Errorf("the listener at %v ended", at.local))
	} else if seen != source {
		p.rewritten = true
	}
	return true
}

// stopped fills in what passes of the protocols that don't pass on any port:
// some services, or nothing.
func (p *prober) stopped(m *Properties, tcpPasses bool) {
	passes := map[middlebox.Protocol]bool{middlebox.UDP: p.udpPasses, middlebox.TCP: tcpPasses}
	for _, protocol := range []middlebox.Protocol{middlebox.TCP, middlebox.UDP} {
		if passes[protocol] {
			continue
		}
		var allowed []string
		for _, s := range p.Services {
			if s.Protocol == protocol && s.Port != 0 && p.passes(s) && !slices.Contains(allowed, s.String()) {
				allowed = append(allowed, s.String())
			}
		}
		if m.Allow = append(m.Allow, allowed...); len(allowed) == 0 {
			m.Block = append(m.Block, string(protocol))
		}
	}
	slices.Sort(m.Allow)
	slices.Sort(m.Block)
}

func (p *prober) passes(s middlebox.Service) bool {
	if s.Protocol == middlebox.UDP {
		return p.passesUDP(s.Port)
	}
	return p.passesTCP(s.Port)
}

func (p *prober) passesUDP(port uint16) bool {
	to := p.udpAt(p.WAN[0], port)
	return p.fate(p.udp(p.LAN[0]), to.at()).at != nil
}

func (p *prober) passesTCP(port uint16) bool {
	p.watch.services.Lock()
	defer p.watch.services.Unlock()
	l := p.listen(p.WAN[0], port)
	if p.err != nil {
		return false
	}
	defer l.close()
	return p.attempt(p.LAN[0], 0, l.local).connected
}

// anyPort stands for the ports that no deny rule is about: discard, RFC 863.
const anyPort = 9

// denied says which of the targets are out of reach, over what.
func (p *prober) denied(tcpPasses bool) (list []string) {
	for _, t := range p.Denied {
		out := map[middlebox.Service]bool{}
		ports := append(slices.Clone(t.Ports), anyPort)
		for _, port := range ports {
			to := netip.AddrPortFrom(t.Addr, port)
			if p.udpPasses {
				out[middlebox.Service{Protocol: middlebox.UDP, Port: port}] = p.within(p.fate(p.udp(p.LAN[0]), to).dropped)
			}
			if tcpPasses {
				out[middlebox.Service{Protocol: middlebox.TCP, Port: port}] = p.within(p.attempt(p.LAN[0], 0, to).dropped)
			}
		}
		list = append(list, denial(t.Name, ports, out)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// within says whether one of the boxes that are measured dropped a packet; one
// further out may have done so.
func (p *prober) within(d *Drop) bool { return d != nil && slices.Contains(p.Boxes, d.Box) }

// denial puts into the scenario file's words what of a host is out of reach.
// What was not tried is not in out.
func denial(host string, ports []uint16, out map[middlebox.Service]bool) (list []string) {
	all := len(out) > 0
	for _, denied := range out {
		all = all && denied
	}
	_, udp := out[middlebox.Service{Protocol: middlebox.UDP, Port: anyPort}]
	_, tcp := out[middlebox.Service{Protocol: middlebox.TCP, Port: anyPort}]
	if all && udp && tcp {
		return []string{host}
	}
	for _, protocol := range []middlebox.Protocol{middlebox.UDP, middlebox.TCP} {
		if out[middlebox.Service{Protocol: protocol, Port: anyPort}] {
			list = append(list, middlebox.Deny{Host: host, Protocol: protocol}.String())
			continue
		}
		for _, port := range ports {
			if out[middlebox.Service{Protocol: protocol, Port: port}] {
				list = append(list, middlebox.Deny{Host: host, Protocol: protocol, Port: port}.String())
			}
		}
	}
	return list
}
