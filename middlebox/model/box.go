package model

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"gauntlet/middlebox"
)

// Config is a box in its place.
type Config struct {
	Behaviour middlebox.Behaviour
	WAN       []netip.Addr            // external addresses
	LAN       netip.Prefix            // the network inside
	Routed    []netip.Prefix          // networks further inside whose addresses come as they are, those of firewalls
	Denied    map[string][]netip.Addr // addresses of each host that Behaviour.Deny names
}

// Box is the state of a box. It isn't safe for use by several goroutines.
type Box struct {
	behaviour middlebox.Behaviour
	ports     middlebox.Ports
	wan       []netip.Addr
	networks  []netip.Prefix // inside
	denied    map[string][]netip.Addr

	now       time.Duration
	mappings  map[mappingKey]*mapping                            // by what they belong to
	external  map[middlebox.Protocol]map[netip.AddrPort]*mapping // by external endpoint
	contacted map[peerKey]time.Duration                          // by whom was sent to; when it ends
	paired    map[netip.Addr]netip.Addr                          // internal address to external
	last      map[middlebox.Protocol]map[netip.Addr]uint16       // port given last at each external address
	tcp       connections
	sessions  map[flowKey]session // of UDP, by external endpoint and peer
	rates     map[rateKey]bucket
	begun     int // flows so far
}

// mappingKey is what a mapping belongs to. What the mapping doesn't depend on
// is left out (RFC 4787 §4.1).
type mappingKey struct {
	protocol middlebox.Protocol
	inside   netip.AddrPort
	peer     netip.Addr
	port     uint16
}

type mapping struct {
	key      mappingKey
	external netip.AddrPort
	ends     time.Duration
	closes   time.Duration // of UDP, when it lets nothing in any more; with RefreshOutbound that is before it ends
}

// sent keeps the mapping of a datagram that leaves by it.
func (b *Box) sent(m *mapping) {
	m.ends = b.now + b.udpTimeout()
	m.closes = m.ends
}

// came keeps that of one that comes in. With RefreshOutbound the external port
// stays its endpoint's as long as the flow lives, and lets in no longer.
func (b *Box) came(m *mapping) {
	m.ends = b.now + b.udpTimeout()
	if b.behaviour.Refresh != middlebox.RefreshOutbound {
		m.closes = m.ends
	}
}

// open returns the UDP mapping of an external endpoint, nil if none lets
// anything in.
func (b *Box) open(e netip.AddrPort) *mapping {
	if m := b.mapped(middlebox.UDP, e); m != nil && m.closes > b.now {
		return m
	}
	return nil
}

// peerKey is what filtering remembers. What it doesn't depend on is left out
// (RFC 4787 §5). A session, which is what address-and-port-dependent filtering
// lets in, has its external endpoint too.
type peerKey struct {
	protocol middlebox.Protocol
	inside   netip.AddrPort
	external netip.AddrPort
	peer     netip.Addr
	port     uint16
}

// modelled are the fields of a behaviour that the model covers. One that is not
// here, as it is if it is new, must not be set.
var modelled = []string{
	"Mapping", "Filtering", "TCPFiltering", "Ports", "PortBlock", "Hairpin", "UDPTimeout", "UDPUnreplied", "TCPEstablished",
	"TCPTransitory", "TCPIdle", "UDPRate", "Unsolicited", "Refresh", "Pool", "Block", "Deny", "Allow",
}

// Beyond names a field of a behaviour that is set and that the model doesn't
// cover, "" if there is none.
func Beyond(b middlebox.Behaviour) string { return beyond(b) }

func beyond(behaviour any) string {
	v := reflect.ValueOf(behaviour)
	for i := range v.NumField() {
		if f := v.Type().Field(i).Name; !v.Field(i).IsZero() && !slices.Contains(modelled, f) {
			return f
		}
	}
	return ""
}

// New makes a box without any state. It fails if the behaviour isn't valid, goes
// beyond the model, or addresses are missing.
func New(c Config) (*Box, error) {
	if err := errors.Join(c.Behaviour.Validate()...); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if field := Beyond(c.Behaviour); field != "" {
		return nil, fmt.Errorf("model: a behaviour with %s, of which the model knows nothing; expected one without", field)
	}
	if c.Behaviour.Translates() && (len(c.WAN) == 0 || !c.LAN.Addr().Is4()) {
		return nil, fmt.Errorf("model: external addresses %v, inside prefix %v; expected both, of IPv4", c.WAN, c.LAN)
	}
	b := &Box{
		behaviour: c.Behaviour, wan: slices.Clone(c.WAN), denied: c.Denied,
		networks: append([]netip.Prefix{c.LAN}, c.Routed...),
		ports:    c.Behaviour.Ports,
	}
	if b.ports == "" {
		b.ports = middlebox.RandomPorts
		if c.Behaviour.Mapping == middlebox.MapEndpointIndependent {
			b.ports = middlebox.PreservePorts
		}
	}
	b.Reset()
	return b, nil
}

// Reset forgets everything, as a box does that loses its power.
func (b *Box) Reset() {
	b.mappings = map[mappingKey]*mapping{}
	b.external = map[middlebox.Protocol]map[netip.AddrPort]*mapping{middlebox.UDP: {}, middlebox.TCP: {}}
	b.contacted = map[peerKey]time.Duration{}
	b.paired = map[netip.Addr]netip.Addr{}
	b.last = map[middlebox.Protocol]map[netip.Addr]uint16{middlebox.UDP: {}, middlebox.TCP: {}}
	b.tcp = newConnections()
	b.sessions = map[flowKey]session{}
	b.rates = map[rateKey]bucket{}
}

// Handle takes a packet that comes from a side at a time, which must not be
// before that of the packet before, and says what becomes of it. It fails only
// if choose does.
func (b *Box) Handle(from Side, p Packet, now time.Duration, choose Chooser) (Fate, error) {
	b.now = max(b.now, now)
	if from == Inside {
		return b.outward(p, choose)
	}
	return b.inward(p), nil
}

func (b *Box) isWAN(a netip.Addr) bool { return b.behaviour.Translates() && slices.Contains(b.wan, a) }

func drop(rule string) Fate { return Fate{Dropped: rule} }

// stopped names the rule that stops a packet whoever sends it, or "".
func (b *Box) stopped(p Packet) string {
	if slices.Contains(b.behaviour.Block, p.Protocol) {
		return middlebox.BlockRule(p.Protocol)
	}
	for _, d := range b.behaviour.Deny {
		if d.Protocol != "" && d.Protocol != p.Protocol {
			continue
		}
		for _, end := range []netip.AddrPort{p.From, p.To} {
			if slices.Contains(b.denied[d.Host], end.Addr()) && (d.Port == 0 || d.Port == end.Port()) {
				return middlebox.DenyRule(d.Host)
			}
		}
	}
	return ""
}

// allows says whether a new flow from inside is on the allow list.
func (b *Box) allows(p Packet) bool {
	return len(b.behaviour.Allow) == 0 || slices.ContainsFunc(b.behaviour.Allow, func(s middlebox.Service) bool {
		return s.Protocol == p.Protocol && (s.Port == 0 || s.Port == p.To.Port())
	})
}

func (b *Box) key(p middlebox.Protocol, inside, peer netip.AddrPort) mappingKey {
	key := mappingKey{protocol: p, inside: inside}
	if b.behaviour.Mapping != middlebox.MapEndpointIndependent {
		key.peer = peer.Addr()
	}
	if b.behaviour.Mapping == middlebox.MapAddressAndPortDependent {
		key.port = peer.Port()
	}
	return key
}

// mapped returns the mapping of an external endpoint, nil if none lives.
func (b *Box) mapped(p middlebox.Protocol, e netip.AddrPort) *mapping {
	if m := b.external[p][e]; m != nil && m.ends > b.now {
		return m
	}
	return nil
}

func (b *Box) taken(p middlebox.Protocol, e netip.AddrPort) bool { return b.mapped(p, e) != nil }

// mapping returns the mapping of an internal endpoint towards a peer, a new one
// if none lives.
func (b *Box) mapping(p middlebox.Protocol, inside, peer netip.AddrPort, choose Chooser) (*mapping, error) {
	if b.tracked() {
		return b.ofFlow(p, inside, peer, choose)
	}
	key := b.key(p, inside, peer)
	if m := b.mappings[key]; m != nil && m.ends > b.now {
		return m, nil
	}
	external, err := b.choose(Choice{Inside: inside, box: b, protocol: p}, choose)
	if err != nil {
		return nil, err
	}
	m := &mapping{key: key, external: external}
	b.mappings[key], b.external[p][external] = m, m
	return m, nil
}

// choose has a choice made, and sees that the behaviour allows it.
func (b *Box) choose(choice Choice, choose Chooser) (netip.AddrPort, error) {
	external, err := choose(choice)
	if err != nil {
		return external, err
	}
	if err := choice.Allows(external); err != nil {
		return external, fmt.Errorf("external endpoint of %v: %w", choice.Inside, err)
	}
	b.paired[choice.Inside.Addr()] = external.Addr()
	b.last[choice.protocol][external.Addr()] = external.Port()
	return external, nil
}
