package middlebox

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"gauntlet/topo/ns"
)

// Feature is a part of the kernel's nf_tables that rules of boxes are made of.
// What every rule needs, such as comparing fields of a packet, is none.
type Feature struct {
	Name string
	// Module is the kernel module that has it.
	Module string
	// used says whether an expression is of it.
	used func(expr.Any) bool
	// tiny is the smallest set of rules with it.
	tiny Ruleset
}

// A chain of each type in which a feature is tried.
var (
	filtering = chain{name: "try", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, hookName: "forward"}
	rawly     = chain{name: "try", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, hookName: "prerouting", priority: priorityEarly}
	snatting  = chain{name: "try", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, hookName: "postrouting", priority: prioritySourceNAT}
	dnatting  = chain{name: "try", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, hookName: "prerouting", priority: priorityDestinationNAT}
)

// tryName is that of sets and counters of tiny rules; tryAddress is one for
// documentation, RFC 5737.
const tryName = "tried"

var tryAddress = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// tiny makes rules of one.
func tiny(in chain, sets []set, terms ...term) Ruleset {
	in.rules = []rule{{terms: terms}}
	return Ruleset{sets: sets, chains: []chain{in}}
}

// Features are all that the rules of some behaviour use.
func Features() []Feature {
	addresses := []set{{name: tryName, timeout: time.Minute, key: []nftables.SetDatatype{nftables.TypeIPAddr}}}
	mapping := []set{{name: tryName, timeout: time.Minute, key: endpoints(2), data: endpoints(2)}}
	counted := tiny(filtering, nil, count(tryName))
	counted.counters = []string{tryName}
	ct := func(keys ...expr.CtKey) func(expr.Any) bool {
		return func(e expr.Any) bool { c, ok := e.(*expr.Ct); return ok && slices.Contains(keys, c.Key) }
	}
	nat := func(kind expr.NATType) func(expr.Any) bool {
		return func(e expr.Any) bool { n, ok := e.(*expr.NAT); return ok && n.Type == kind }
	}
	return []Feature{
		{"ct state, status, direction", "nft_ct", ct(expr.CtKeySTATE, expr.CtKeySTATUS, expr.CtKeyDIRECTION), tiny(filtering, nil, established())},
		{"ct mark", "nft_ct", ct(expr.CtKeyMARK), tiny(filtering, nil, setMark(closingMark))},
		{"ct zone", "nft_ct", ct(expr.CtKeyZONE), tiny(rawly, nil, zone(destPort))},
		{"ct original and reply tuples", "nft_ct", ct(expr.CtKeySRC, expr.CtKeyDST, expr.CtKeyPROTOSRC, expr.CtKeyPROTODST),
			tiny(filtering, nil, addressIs(originalSource, tryAddress))},
		{"masquerade", "nft_masq", is[*expr.Masq], tiny(snatting, nil, masquerade())},
		{"snat", "nft_nat", nat(expr.NATTypeSourceNAT), tiny(snatting, nil, snatTo(tryAddress, tryAddress, true, false))},
		{"dnat by a map", "nft_nat", nat(expr.NATTypeDestNAT), tiny(dnatting, mapping, dnatBy(tryName))},
		{"dynamic sets with timeouts", "nf_tables", is[*expr.Dynset], tiny(filtering, addresses, updateSet(tryName, source))},
		{"look-ups in sets and maps", "nf_tables", is[*expr.Lookup], tiny(filtering, addresses, inSet(tryName, source))},
		{"limit by address", "nft_limit", limits, tiny(filtering, addresses, faster(tryName, source, 1))},
		{"numgen", "nft_numgen", is[*expr.Numgen], tiny(filtering, nil, setPacketMark(portNumber{from: firstPort, count: 2}))},
		{"jhash", "nft_hash", is[*expr.Hash], tiny(filtering, nil, setPacketMark(drawnAddress{first: tryAddress, count: 2, paired: true}))},
		{"named counters", "nf_tables", is[*expr.Objref], counted},
		{"log to a group", "nft_log", is[*expr.Log], tiny(filtering, nil, record(tryName, 1))},
		{"reject", "nft_reject_ipv4", is[*expr.Reject], tiny(filtering, nil, rejectICMP())},
	}
}

// is says whether an expression is of a type.
func is[T expr.Any](e expr.Any) bool { _, ok := e.(T); return ok }

// limits says whether an expression is a set's that keeps a rate by element.
func limits(e expr.Any) bool {
	d, ok := e.(*expr.Dynset)
	return ok && slices.ContainsFunc(d.Exprs, is[*expr.Limit])
}

// Try loads rules with the feature alone into a namespace, in the place of those
// it has. The error says that the kernel doesn't take them.
func (f Feature) Try(h *ns.Handle) error {
	if err := Load(h, &f.tiny); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

// NeededBy says which presets use the feature, and, of settings that no preset
// has, which do.
func (f Feature) NeededBy() (presets, settings []string) {
	for _, name := range Presets() {
		if b, _ := Preset(name); f.usedBy(b) {
			presets = append(presets, name)
		}
	}
	for _, s := range beyond {
		plain, with := Behaviour{}, Behaviour{}
		for _, b := range []*Behaviour{&plain, &with} {
			b.Mapping, b.Filtering = MapEndpointIndependent, FilterAddressAndPortDependent
		}
		if s.set(&with); f.usedBy(with) && !f.usedBy(plain) {
			settings = append(settings, s.name)
		}
	}
	return presets, settings
}

// beyond are settings by which rules use more than those of a NAT without, as a
// scenario has them.
var beyond = []struct {
	name string
	set  func(*Behaviour)
}{
	{"a mapping that depends on the destination and a looser filtering", func(b *Behaviour) {
		b.Mapping, b.Filtering = MapAddressDependent, FilterAddressDependent
	}},
	{"hairpin", func(b *Behaviour) { b.Hairpin = true }},
	{"ports: random", func(b *Behaviour) { b.Ports = RandomPorts }},
	{"ports: sequential", func(b *Behaviour) { b.Ports = SequentialPorts }},
	{"ports: parity", func(b *Behaviour) { b.Ports = ParityPorts }},
	{"ports: block", func(b *Behaviour) { b.Ports = BlockPorts }},
	{"several addresses, unless pool: arbitrary", func(b *Behaviour) { b.Pool = PairedPool }},
	{"pool: arbitrary", func(b *Behaviour) { b.Pool = ArbitraryPool }},
	{"refresh: outbound", func(b *Behaviour) { b.Refresh = RefreshOutbound }},
	{"unsolicited: confirm", func(b *Behaviour) { b.Unsolicited = ConfirmUnsolicited }},
	{"unsolicited: reject", func(b *Behaviour) { b.Unsolicited = RejectUnsolicited }},
	{"tcp_idle", func(b *Behaviour) { b.TCPIdle = time.Minute }},
	{"udp_rate", func(b *Behaviour) { b.UDPRate = 100 }},
	{"port_mapping", func(b *Behaviour) { b.PortMapping = true }},
}

// usedBy says whether the rules of a behaviour use the feature; a behaviour that
// has no rules uses none.
func (f Feature) usedBy(b Behaviour) bool {
	rs, err := sampleRules(b)
	return err == nil && slices.ContainsFunc(rs.exprs(), f.used)
}

// sampleRules are those of some box with the behaviour. Where that says how it
// chooses among addresses, the box has two.
func sampleRules(b Behaviour) (*Ruleset, error) {
	addresses := []netip.Addr{tryAddress}
	if b.Pool != "" {
		addresses = append(addresses, tryAddress.Next())
	}
	denied := map[string][]netip.Addr{}
	for _, d := range b.Deny {
		denied[d.Host] = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, 1})}
	}
	return Rules(Box{
		Name: tryName, Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: addresses,
		LANPrefix: netip.MustParsePrefix("10.0.0.0/24"), Denied: denied, LogGroup: 1,
	})
}

// exprs are all expressions of the rules.
func (rs *Ruleset) exprs() (all []expr.Any) {
	for _, c := range rs.chains {
		for _, r := range c.rules {
			all = append(all, r.exprs()...)
		}
	}
	return all
}
