package middlebox

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Validate returns everything that is wrong with a behaviour, in the words of
// the scenario file. What can't be done, or not yet, is refused: nothing is
// accepted and then ignored.
func (b Behaviour) Validate() []error {
	v := &validator{}
	v.word("mapping", string(b.Mapping), MapEndpointIndependent, MapAddressDependent, MapAddressAndPortDependent)
	v.word("filtering", string(b.Filtering), FilterEndpointIndependent, FilterAddressDependent, FilterAddressAndPortDependent)
	v.word("tcp_filtering", string(b.TCPFiltering), FilterEndpointIndependent, FilterAddressDependent, FilterAddressAndPortDependent)
	v.word("ports", string(b.Ports), PreservePorts, RandomPorts, SequentialPorts, ParityPorts, BlockPorts)
	v.word("unsolicited", string(b.Unsolicited), DropUnsolicited, RejectUnsolicited, ConfirmUnsolicited)
	v.word("refresh", string(b.Refresh), RefreshOutbound, RefreshBoth)
	v.word("pool", string(b.Pool), PairedPool, ArbitraryPool)
	for _, t := range []struct {
		key   string
		value time.Duration
	}{{"udp_timeout", b.UDPTimeout}, {"udp_unreplied_timeout", b.UDPUnreplied}, {"tcp_established", b.TCPEstablished}, {"tcp_transitory", b.TCPTransitory}, {"tcp_idle", b.TCPIdle}} {
		v.timeout(t.key, t.value)
	}
	if b.UDPRate < 0 || b.UDPRate > math.MaxInt32 {
		v.addf("udp_rate: %d; expected packets per second, at least 1", b.UDPRate)
	}
	if b.PortBlock != 0 && (b.PortBlock < 2 || b.PortBlock > ports) {
		v.addf("port_block: %d; expected 2 to %d ports", b.PortBlock, ports)
	}
	v.unreplied(b)
	v.protocols(b)
	v.proxy(b)
	v.portMapping(b)
	if len(v.errs) > 0 {
		return v.errs
	}
	if b.Translates() {
		v.translation(b.filled())
	} else {
		v.firewall(b)
	}
	return v.errs
}

// timeout checks a timer.
func (v *validator) timeout(key string, d time.Duration) {
	if d < 0 || d%time.Second != 0 || d > math.MaxInt32*time.Second {
		v.addf("%s: %v; expected whole seconds, at least 1s", key, d)
	}
}

// unreplied checks a timer of flows that are no streams: only connection
// tracking tells them apart.
func (v *validator) unreplied(b Behaviour) {
	if b.UDPUnreplied <= 0 {
		return
	}
	const reason = "since the box's own memory of whom an endpoint has sent to has one timer"
	if timeout := b.filled().UDPTimeout; b.UDPUnreplied > timeout {
		v.addf("udp_unreplied_timeout: %v is longer than udp_timeout: %v; expected at most that", b.UDPUnreplied, timeout)
	}
	if f := b.FilteringOf(UDP); f != FilterAddressAndPortDependent {
		v.addf("udp_unreplied_timeout: %v with filtering: %s is not offered; expected address-and-port-dependent, %s", b.UDPUnreplied, f, reason)
	}
	if b.Hairpin {
		v.addf("udp_unreplied_timeout: %v with hairpin: true is not offered; expected hairpin: false, %s", b.UDPUnreplied, reason)
	}
	if b.Refresh == RefreshOutbound {
		v.addf("udp_unreplied_timeout: %v with refresh: outbound is not offered; expected both, %s", b.UDPUnreplied, reason)
	}
}

type validator struct {
	errs []error
}

func (v *validator) addf(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

// word checks that a value is empty or one of some words.
func (v *validator) word(key, value string, known ...any) {
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = fmt.Sprint(k)
	}
	if value != "" && !slices.Contains(words, value) {
		v.addf("%s: %q; expected one of %s", key, value, strings.Join(words, ", "))
	}
}

// protocols checks what is blocked and denied.
func (v *validator) protocols(b Behaviour) {
	for i, p := range b.Block {
		if p != UDP && p != TCP {
			v.addf("block: %q; expected udp or tcp", p)
		} else if slices.Contains(b.Block[:i], p) {
			v.addf("block: %s twice; expected it once", p)
		}
	}
	for i, s := range b.Allow {
		if parsed, err := ParseService(s.String()); err != nil || parsed != s {
			v.addf("allow: %q; expected PROTO[:PORT]", s)
		} else if slices.Contains(b.Allow[:i], s) {
			v.addf("allow: %v twice; expected it once", s)
		} else if slices.Contains(b.Block, s.Protocol) {
			v.addf("allow: %v with block: %s means nothing; expected one of them", s, s.Protocol)
		}
	}
	for i, d := range b.Deny {
		if parsed, err := ParseDeny(d.String()); err != nil || parsed != d {
			v.addf("deny: %q; expected HOST[:PROTO[:PORT]]", d)
		} else if slices.Contains(b.Deny[:i], d) {
			v.addf("deny: %v twice; expected it once", d)
		}
	}
}

// translation checks the combinations of a box that translates. Its defaults
// are filled in.
func (v *validator) translation(b Behaviour) {
	if b.Mapping == MapEndpointIndependent && b.Unsolicited == ConfirmUnsolicited && b.Pool == ArbitraryPool {
		v.addf("pool: arbitrary with mapping: endpoint-independent and unsolicited: confirm is not offered; expected paired, since connection tracking would give an endpoint another address for every destination")
	}
	if b.Unsolicited == ConfirmUnsolicited {
		v.confirming(b)
	}
	if b.Hairpin && b.Mapping != MapEndpointIndependent && b.Filtering == FilterAddressAndPortDependent {
		v.addf("hairpin: true with mapping: %s and filtering: %s means nothing; expected mapping: endpoint-independent or another filtering, since each of two hosts inside would be let in to the external port alone that the other has towards it, which neither learns", b.Mapping, b.Filtering)
	}
	if b.Hairpin && b.Mapping != MapEndpointIndependent && slices.ContainsFunc(b.Allow, func(s Service) bool { return s.Protocol == UDP }) {
		v.addf("hairpin: true with mapping: %s and allow: udp is not offered; expected mapping: endpoint-independent, or no udp in allow, since an answer to a host inside is mapped by itself there, and would have to be allowed by itself", b.Mapping)
	}
	if b.Hairpin && b.Mapping != MapEndpointIndependent && b.Filtering == FilterAddressDependent && b.Pool == ArbitraryPool {
		v.addf("hairpin: true with mapping: %s, filtering: address-dependent and pool: arbitrary is chance; expected pool: paired, since each of two hosts inside would be let in from the external address alone that the other has towards a third, and arbitrary gives it another", b.Mapping)
	}
	if b.PortBlock != 0 && b.Ports != BlockPorts {
		v.addf("port_block: %d with ports: %s means nothing; expected ports: block, or no port_block", b.PortBlock, b.Ports)
	}
}

// confirming checks a box whose ports are connection tracking's choice.
func (v *validator) confirming(b Behaviour) {
	ports := map[Mapping]Ports{MapEndpointIndependent: PreservePorts, MapAddressAndPortDependent: RandomPorts}
	const reason = "since such a box leaves its ports to connection tracking"
	if want, ok := ports[b.Mapping]; !ok {
		v.addf("unsolicited: confirm with mapping: %s is not offered; expected endpoint-independent or address-and-port-dependent, %s", b.Mapping, reason)
	} else if b.Ports != want {
		v.addf("unsolicited: confirm with mapping: %s and ports: %s is not offered; expected ports: %s, %s", b.Mapping, b.Ports, want, reason)
	}
	if b.Filtering != FilterAddressAndPortDependent {
		v.addf("unsolicited: confirm with filtering: %s is not offered; expected address-and-port-dependent, %s", b.Filtering, reason)
	}
	if b.TCPFiltering != FilterAddressAndPortDependent {
		v.addf("unsolicited: confirm with tcp_filtering: %s is not offered; expected address-and-port-dependent, %s", b.TCPFiltering, reason)
	}
	if b.Hairpin {
		v.addf("unsolicited: confirm with hairpin: true is not offered; expected hairpin: false, %s", reason)
	}
	if b.Refresh == RefreshOutbound {
		v.addf("unsolicited: confirm with refresh: outbound is not offered; expected both, %s", reason)
	}
}

// firewall checks the combinations of a box that doesn't translate.
func (v *validator) firewall(b Behaviour) {
	for _, field := range []struct{ key, value string }{
		{"ports", string(b.Ports)}, {"pool", string(b.Pool)}, {"refresh", string(b.Refresh)},
	} {
		if field.value != "" {
			v.addf("%s: %s without mapping means nothing; expected a mapping, or no %s", field.key, field.value, field.key)
		}
	}
	if b.PortBlock != 0 {
		v.addf("port_block: %d without mapping means nothing; expected a mapping, or no port_block", b.PortBlock)
	}
	if b.Hairpin {
		v.addf("hairpin: true without mapping means nothing; expected a mapping, or no hairpin")
	}
	if b.Unsolicited == ConfirmUnsolicited {
		v.addf("unsolicited: confirm without mapping means nothing, since hosts have their own addresses; expected a mapping, drop or reject")
	}
	if b.Unsolicited != "" && b.FilteringOf(UDP) == FilterEndpointIndependent && b.FilteringOf(TCP) == FilterEndpointIndependent {
		v.addf("unsolicited: %s with filtering: endpoint-independent means nothing, since all is let in; expected no unsolicited", b.Unsolicited)
	}
}
