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
		Refresh:      string(middlebox.RefreshBoth),
	}
	for _, b := range chain {
		d.Mapping = more(d.Mapping, mappingOr(b.Mapping))
		d.Filtering = more(d.Filtering, string(b.FilteringOf(middlebox.UDP)))
		d.TCPFiltering = more(d.TCPFiltering, string(b.FilteringOf(middlebox.TCP)))
		d.lifetime(b)
		for _, r := range b.Deny {
			d.Deny = append(d.Deny, r.String())
		}
	}
	d.Deny = widest(d.Deny)
	d.stopped(chain)
	d.limits(chain)
	d.inbound(chain)
	d.programs(chain)
	d.TCPMapping = d.Mapping
	d.arrivals(chain)
	d.refusals(chain)
	d.errors(chain)
	d.translation(chain)
	if d.Filtering != string(middlebox.FilterEndpointIndependent) {
		d.PerEndpoint = yes(true)
	}
	if d.TCPFiltering != string(middlebox.FilterEndpointIndependent) {
		d.TCPPerEndpoint = yes(true)
	}
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
	d.DenyInbound = d.deniedInbound(chain, middlebox.UDP)
	d.TCPDenyInbound = d.deniedInbound(chain, middlebox.TCP)
}

// deniedInbound are the hosts of which nothing gets in by a protocol that passes.
func (d *Properties) deniedInbound(chain []middlebox.Behaviour, p middlebox.Protocol) (hosts []string) {
	if !d.open(p) {
		return nil
	}
	for _, b := range chain {
		for _, r := range b.Deny {
			if (r.Protocol == "" || r.Protocol == p) && r.Port == 0 && !slices.Contains(hosts, r.Host) {
				hosts = append(hosts, r.Host)
			}
		}
	}
	slices.Sort(hosts)
	return hosts
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

// limits takes the lowest, of what passes.
func (d *Properties) limits(chain []middlebox.Behaviour) {
	for _, b := range chain {
		if b.TCPIdle > 0 && !slices.Contains(d.Block, string(middlebox.TCP)) {
			d.TCPIdle = cut
		}
		if b.UDPRate > 0 && d.open(middlebox.UDP) && (d.UDPRate == 0 || b.UDPRate < d.UDPRate) {
			d.UDPRate, d.UDPRateInward = b.UDPRate, b.UDPRate
		}
	}
}

// widest leaves of what is denied, sorted, what no other covers: that is what is
// seen.
func widest(deny []string) []string {
	slices.Sort(deny)
	deny = slices.Compact(deny)
	return slices.DeleteFunc(slices.Clone(deny), func(text string) bool {
		d, err := middlebox.ParseDeny(text)
		return err == nil && slices.ContainsFunc(deny, func(other string) bool {
			o, err := middlebox.ParseDeny(other)
			return err == nil && o != d && o.Covers(d)
		})
	})
}

// lifetime takes the shortest of the timers. They mean something where
// something is stopped: with TCPIdle, connections that are forgotten.
func (d *Properties) lifetime(b middlebox.Behaviour) {
	if filters(b, middlebox.UDP) {
		d.lifetimeUDP(b)
	}
	if filters(b, middlebox.TCP) || b.TCPIdle > 0 {
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
	if seconds := int(b.UDPUnreplied / time.Second); seconds > 0 && (d.UDPUnreplied == 0 || seconds < d.UDPUnreplied) {
		d.UDPUnreplied = seconds
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

// refusals says what the senders of packets hear that are stopped. Boxes stop in
// silence what comes from inside.
func (d *Properties) refusals(chain []middlebox.Behaviour) {
	d.Refusal, d.TCPRefusal = refusalOf(d.Unsolicited, portUnreachable), refusalOf(d.TCPUnsolicited, reset)
	d.TCPStray, d.TCPStrayOutward = through, through
	for _, b := range slices.Backward(chain) { // the first that it comes to
		if d.TCPStray == through {
			d.TCPStray = strayAt(b)
		}
		if b.TCPIdle > 0 {
			d.TCPStrayOutward = string(middlebox.DropUnsolicited)
		}
	}
	if stops(chain, middlebox.UDP) {
		d.StoppedRefusal = silence
	}
	if stops(chain, middlebox.TCP) {
		d.TCPStoppedRefusal = silence
	}
}

// strayAt says what a box does to a segment from outside in the middle of no
// connection. One that cuts connections off takes none up in the middle: such a
// segment begins nothing, so that it is not even refused, except by a box that
// answers for itself.
func strayAt(b middlebox.Behaviour) string {
	switch {
	case !filters(b, middlebox.TCP) && b.TCPIdle == 0:
		return through
	case b.Unsolicited == middlebox.ConfirmUnsolicited, b.Unsolicited == middlebox.RejectUnsolicited && b.TCPIdle == 0:
		return string(b.Unsolicited) + " with " + reset
	}
	return string(middlebox.DropUnsolicited)
}

func refusalOf(treatment, with string) string {
	switch treatment {
	case "":
		return ""
	case string(middlebox.DropUnsolicited):
		return silence
	}
	return with
}

// errors says what becomes of ICMP errors, where something passes that they may
// be about.
func (d *Properties) errors(chain []middlebox.Behaviour) {
	for _, p := range []middlebox.Protocol{middlebox.TCP, middlebox.UDP} {
		if d.open(p) {
			d.ICMPErrors = append(d.ICMPErrors, string(p)+" "+inward, string(p)+" "+outward)
		}
	}
	if len(d.ICMPErrors) == 0 {
		return
	}
	d.ICMPUnrelated, d.ICMPUnrelatedOutward = through, through
	for _, b := range slices.Backward(chain) { // the first that they come to
		if filters(b, middlebox.UDP) && d.ICMPUnrelated == through {
			d.ICMPUnrelated = string(middlebox.DropUnsolicited)
			if b.Unsolicited == middlebox.ConfirmUnsolicited {
				d.ICMPUnrelated = vanishes // it answers for itself, but not an error
			}
		}
		if b.Translates() {
			d.ICMPUnrelatedOutward = string(middlebox.DropUnsolicited)
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
	switch {
	case b.Hairpin && b.Mapping == middlebox.MapEndpointIndependent:
		d.HairpinSource = external
	case b.Hairpin:
		d.HairpinSource = anotherExternal
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
