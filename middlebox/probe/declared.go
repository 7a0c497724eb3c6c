package probe

import (
	"slices"
	"time"

	"gauntlet/middlebox"
)

// Declared returns what a chain of boxes, innermost first, must be measured to
// do if each does what it declares. Of a chain of several, some properties
// mean nothing, or depend on both boxes in ways that have no word; those are
// left empty.
func Declared(chain ...middlebox.Behaviour) Properties {
	d := Properties{
		Mapping:      mappingNone,
		Filtering:    string(middlebox.FilterEndpointIndependent),
		TCPFiltering: string(middlebox.FilterEndpointIndependent),
		PunchFirst:   yes(true),
		ICMPErrors:   yes(true),
		Refresh:      string(middlebox.RefreshBoth),
	}
	for _, b := range chain {
		d.Mapping = more(d.Mapping, mappingOr(b.Mapping))
		d.Filtering = more(d.Filtering, string(b.FilteringOf(middlebox.UDP)))
		d.TCPFiltering = more(d.TCPFiltering, string(b.FilteringOf(middlebox.TCP)))
		d.lifetime(b)
		d.limits(b)
		for _, r := range b.Deny {
			d.Deny = append(d.Deny, r.String())
		}
	}
	d.stopped(chain)
	d.inbound(chain)
	d.programs(chain)
	d.TCPMapping = d.Mapping
	d.arrivals(chain)
	d.translation(chain)
	d.PerEndpoint = nil
	if d.Filtering != string(middlebox.FilterEndpointIndependent) {
		d.PerEndpoint = yes(true)
	}
	slices.Sort(d.Deny)
	d.Deny = slices.Compact(d.Deny)
	return d
}

// stopped fills in what of the protocols passes all boxes.
func (d *Properties) stopped(chain []middlebox.Behaviour) {
	for _, protocol := range []middlebox.Protocol{middlebox.TCP, middlebox.UDP} {
		if passes(chain, middlebox.Service{Protocol: protocol}) {
			continue
		}
		some := false
		for _, b := range chain {
			for _, s := range b.Allow {
				if s.Protocol == protocol && s.Port != 0 && passes(chain, s) {
					some = true
					d.Allow = append(d.Allow, s.String())
				}
			}
		}
		if !some {
			d.Block = append(d.Block, string(protocol))
		}
	}
	slices.Sort(d.Block)
	slices.Sort(d.Allow)
	d.Allow = slices.Compact(d.Allow)
}

// inbound fills in what of the protocols that don't pass outward doesn't get in
// either, and whose packets don't although they were asked for. A deny rule
// about a port is not seen there.
func (d *Properties) inbound(chain []middlebox.Behaviour) {
	for _, protocol := range []middlebox.Protocol{middlebox.TCP, middlebox.UDP} {
		if !passes(chain, middlebox.Service{Protocol: protocol}) && slices.ContainsFunc(chain, func(b middlebox.Behaviour) bool {
			return filters(b, protocol) || slices.Contains(b.Block, protocol)
		}) {
			d.BlockInbound = append(d.BlockInbound, string(protocol))
		}
	}
	if d.open(middlebox.UDP) {
		for _, b := range chain {
			for _, r := range b.Deny {
				if r.Protocol != middlebox.TCP && r.Port == 0 && !slices.Contains(d.DenyInbound, r.Host) {
					d.DenyInbound = append(d.DenyInbound, r.Host)
				}
			}
		}
	}
	slices.Sort(d.DenyInbound)
}

// passes says whether a service gets through all boxes, every port of its
// protocol if it names none.
func passes(chain []middlebox.Behaviour, s middlebox.Service) bool {
	return !slices.ContainsFunc(chain, func(b middlebox.Behaviour) bool {
		allowed := len(b.Allow) == 0 || slices.ContainsFunc(b.Allow, func(a middlebox.Service) bool {
			return a.Protocol == s.Protocol && (a.Port == 0 || a.Port == s.Port)
		})
		return !allowed || b.Proxy != middlebox.NoProxy || slices.Contains(b.Block, s.Protocol)
	})
}

func mappingOr(m middlebox.Mapping) string {
	if m == middlebox.NoMapping {
		return mappingNone
	}
	return string(m)
}

// filters says whether a box stops anything of a protocol for being uninvited.
func filters(b middlebox.Behaviour, p middlebox.Protocol) bool {
	return b.Translates() || b.FilteringOf(p) != middlebox.FilterEndpointIndependent
}

// limits takes the lowest.
func (d *Properties) limits(b middlebox.Behaviour) {
	if b.TCPIdle > 0 {
		d.TCPIdle = cut
	}
	if b.UDPRate > 0 && (d.UDPRate == 0 || b.UDPRate < d.UDPRate) {
		d.UDPRate, d.UDPRateInward = b.UDPRate, b.UDPRate
	}
}

// lifetime takes the shortest of the timers. They mean something where
// something is stopped.
func (d *Properties) lifetime(b middlebox.Behaviour) {
	if filters(b, middlebox.UDP) {
		d.lifetimeUDP(b)
	}
	if filters(b, middlebox.TCP) {
		d.lifetimeTCP(b)
	}
}

func (d *Properties) lifetimeUDP(b middlebox.Behaviour) {
	timeout := b.UDPTimeout
	if timeout == 0 {
		timeout = middlebox.DefaultUDPTimeout
	}
	if seconds := int(timeout / time.Second); d.UDPTimeout == 0 || seconds < d.UDPTimeout {
		d.UDPTimeout = seconds
	}
	if b.Refresh == middlebox.RefreshOutbound {
		d.Refresh = string(b.Refresh)
	}
}

func (d *Properties) lifetimeTCP(b middlebox.Behaviour) {
	transitory := b.TCPTransitory
	if transitory == 0 {
		transitory = middlebox.DefaultTCPTransitory
	}
	if seconds := int(transitory / time.Second); d.TCPTransitory == 0 || seconds < d.TCPTransitory {
		d.TCPTransitory = seconds
	}
	established := b.TCPEstablished
	if established == 0 {
		established = middlebox.DefaultTCPEstablished
	}
	if b.TCPIdle > 0 {
		established = min(established, b.TCPIdle)
	}
	if seconds := int(established / time.Second); d.TCPEstablished == 0 || seconds < d.TCPEstablished {
		d.TCPEstablished = seconds
	}
}

// arrivals says what becomes of packets that come from outside first, at the
// box they come to.
func (d *Properties) arrivals(chain []middlebox.Behaviour) {
	d.PunchFirst = yes(d.Mapping == mappingNone || d.Mapping == string(middlebox.MapEndpointIndependent))
	reached := true // by a packet to an external endpoint that is in use
	for _, b := range slices.Backward(chain) {
		strict := b.FilteringOf(middlebox.UDP) == middlebox.FilterAddressAndPortDependent
		if b.Unsolicited == middlebox.ConfirmUnsolicited && strict && reached {
			d.PunchFirst = yes(false) // it takes the port, see middlebox.ConfirmUnsolicited
		}
		reached = reached && b.FilteringOf(middlebox.UDP) == middlebox.FilterEndpointIndependent
		unsolicited := string(b.Unsolicited)
		if unsolicited == "" {
			unsolicited = string(middlebox.DropUnsolicited)
		}
		if filters(b, middlebox.UDP) && d.Unsolicited == "" {
			d.Unsolicited = unsolicited
		}
		if filters(b, middlebox.TCP) && d.TCPUnsolicited == "" {
			d.TCPUnsolicited = unsolicited
		}
	}
}

// translation fills in what only a box that translates has.
func (d *Properties) translation(chain []middlebox.Behaviour) {
	if d.Mapping == mappingNone {
		return
	}
	d.PortCollision = distinct
	var ways []string // other than to preserve
	for _, b := range chain {
		if way := portsOr(b); b.Translates() && way != middlebox.PreservePorts {
			ways = append(ways, string(way))
		}
	}
	switch len(ways) {
	case 0:
		d.Ports = string(middlebox.PreservePorts)
	case 1:
		d.Ports = ways[0]
	}
	d.TCPPorts = d.Ports
	if len(chain) > 1 {
		return
	}
	b := chain[0]
	if portsOr(b) == middlebox.BlockPorts {
		d.PortBlock = b.PortBlock
		if d.PortBlock == 0 {
			d.PortBlock = middlebox.DefaultPortBlock
		}
	}
	d.Hairpin = yes(b.Hairpin)
	if b.Hairpin {
		d.HairpinSource = external
	}
	d.Pool = string(b.Pool)
	if b.Pool == "" {
		d.Pool = string(middlebox.PairedPool)
	}
}

func portsOr(b middlebox.Behaviour) middlebox.Ports {
	switch {
	case b.Ports != "":
		return b.Ports
	case b.Mapping == middlebox.MapEndpointIndependent:
		return middlebox.PreservePorts
	}
	return middlebox.RandomPorts
}
