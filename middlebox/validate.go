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
	v.word("ports", string(b.Ports), PreservePorts, RandomPorts, SequentialPorts, ParityPorts, BlockPorts)
	v.word("unsolicited", string(b.Unsolicited), DropUnsolicited, RejectUnsolicited, ConfirmUnsolicited)
	v.word("refresh", string(b.Refresh), RefreshOutbound, RefreshBoth)
	v.word("pool", string(b.Pool), PairedPool, ArbitraryPool)
	if b.UDPTimeout < 0 || b.UDPTimeout%time.Second != 0 || b.UDPTimeout > math.MaxInt32*time.Second {
		v.addf("udp_timeout: %v; expected whole seconds, at least 1s", b.UDPTimeout)
	}
	v.protocols(b)
	if len(v.errs) > 0 {
		return v.errs
	}
	if b.Translates() {
		v.translation(b.filled())
	} else {
		v.firewall(b)
	}
	if b.Refresh == RefreshOutbound {
		v.addf("refresh: outbound is not offered yet; expected both")
	}
	return v.errs
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
	switch b.Mapping {
	case MapEndpointIndependent:
		if b.Ports != PreservePorts {
			v.addf("ports: %s with mapping: endpoint-independent is not offered yet; expected preserve", b.Ports)
		}
		if b.Pool == ArbitraryPool {
			v.addf("pool: arbitrary with mapping: endpoint-independent is not offered; expected paired, since an endpoint with two external addresses has no endpoint-independent mapping")
		}
	case MapAddressAndPortDependent:
		if b.Ports != RandomPorts {
			v.addf("ports: %s with mapping: address-and-port-dependent is not offered yet; expected random", b.Ports)
		}
		if b.Filtering != FilterAddressAndPortDependent {
			v.addf("filtering: %s with mapping: address-and-port-dependent is not offered; expected address-and-port-dependent", b.Filtering)
		}
	default:
		v.addf("mapping: %s is not offered yet; expected endpoint-independent or address-and-port-dependent", b.Mapping)
	}
	if b.Hairpin {
		v.addf("hairpin: true is not offered yet; expected false")
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
	if b.Hairpin {
		v.addf("hairpin: true without mapping means nothing; expected a mapping, or no hairpin")
	}
	if b.Unsolicited == ConfirmUnsolicited {
		v.addf("unsolicited: confirm without mapping means nothing, since hosts have their own addresses; expected a mapping, drop or reject")
	}
	if b.Unsolicited != "" && b.filled().Filtering == FilterEndpointIndependent {
		v.addf("unsolicited: %s with filtering: endpoint-independent means nothing, since all is let in; expected no unsolicited", b.Unsolicited)
	}
}
