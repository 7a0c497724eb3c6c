package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/evidence"
)

// Rules of package middlebox by the names that its drop logs give.
const (
	ruleUnsolicited  = "unsolicited"
	ruleUntranslated = "untranslated"
	ruleHairpin      = "hairpin"
	ruleNoPort       = "no-port"
	ruleNotAllowed   = "not-allowed"
	ruleNotProxied   = "not-proxied"
	ruleTCPIdle      = "tcp-idle"
	ruleUDPRate      = "udp-rate"
	ruleBlock        = "block-" // and the transport
	ruleDeny         = "deny-"  // and the host
)

// letIn says what would have let a dropped packet pass.
func (f *finder) letIn(d dropped) string {
	if transport, ok := strings.CutPrefix(d.Rule, ruleBlock); ok {
		return transport + " is blocked"
	}
	if host, ok := strings.CutPrefix(d.Rule, ruleDeny); ok {
		return "nothing goes to or comes from " + host
	}
	switch d.Rule {
	case ruleUnsolicited:
		return f.invitation(d)
	case ruleHairpin:
		if bound := f.ev.Bindings(d.Router, d.flow.Transport, d.Destination); len(bound) > 0 {
			return fmt.Sprintf("no hairpin: from inside, %s doesn't lead back to %s", d.Destination, bound[0].Host)
		}
		return fmt.Sprintf("no hairpin, or nobody inside has %s", d.Destination)
	case ruleNoPort:
		return "a free external port: none is left"
	case ruleUntranslated:
		return "a mapping: it would have left with an address of the inside"
	case ruleNotAllowed:
		return fmt.Sprintf("%s to port %d is not among what may leave", d.flow.Transport, d.Destination.Port())
	case ruleNotProxied:
		return "nothing but the box's proxy leads out"
	case ruleTCPIdle:
		return "a packet in time: the connection was silent for too long, or is unknown"
	case ruleUDPRate:
		return "fewer packets a second"
	}
	return "nothing known of this rule"
}

// invitation says what would have let an unsolicited packet in: what its
// destination should have sent before, by how the box maps and filters.
func (f *finder) invitation(d dropped) string {
	box := f.ev.World.Behaviour(d.Router, d.Time)
	bound := f.ev.Bindings(d.Router, d.flow.Transport, d.Destination)
	before := slices.Clone(bound)
	before = slices.DeleteFunc(before, func(b evidence.Binding) bool { return b.Since.After(d.Time) })
	what := "mapping of"
	if !box.Translates {
		what = "flow from"
	}
	if len(before) == 0 {
		if first, ok := earliest(bound); ok {
			return fmt.Sprintf("no %s %s yet: %s sent from it %s later", what, d.Destination, first.Host, later(d.Time, first.Since))
		}
		return fmt.Sprintf("no %s %s: nothing inside sent from it", what, d.Destination)
	}
	host, local := before[0].Host, before[0].Local
	if box.Translates && fixedPeer(box.Mapping, before, d.Source) {
		return f.otherMapping(d, box, before)
	}
	asked, matches := d.Source.String(), func(b evidence.Binding) bool { return b.Peer == d.Source }
	switch box.Filtering {
	case evidence.AddressDependent:
		asked, matches = d.Source.Addr().String(), func(b evidence.Binding) bool { return b.Peer.Addr() == d.Source.Addr() }
	case evidence.AddressAndPortDependent:
	default:
		return fmt.Sprintf("a mapping that is still there: that of %s for %s (%s) is gone", d.Destination, host, local)
	}
	of := slices.DeleteFunc(slices.Clone(bound), func(b evidence.Binding) bool { return !matches(b) })
	text := fmt.Sprintf("had %s sent to %s first (%s filtering)", host, asked, box.Filtering)
	first, ok := earliest(of)
	switch {
	case !ok:
		return text
	case first.Since.After(d.Time):
		return fmt.Sprintf("%s; it did %s later", text, later(d.Time, first.Since))
	}
	return fmt.Sprintf("had %s sent to %s again (%s filtering): what it sent %s before was forgotten", host, asked, box.Filtering, later(first.Since, d.Time))
}

// fixedPeer says whether a box that maps each destination by itself made the
// mapping for other destinations than where a packet comes from.
func fixedPeer(mapping evidence.Mapping, bound []evidence.Binding, source netip.AddrPort) bool {
	switch string(mapping) {
	case string(evidence.AddressDependent):
		return !slices.ContainsFunc(bound, func(b evidence.Binding) bool { return b.Peer.Addr() == source.Addr() })
	case string(evidence.AddressAndPortDependent):
		return !slices.ContainsFunc(bound, func(b evidence.Binding) bool { return b.Peer == source })
	}
	return false
}

// otherMapping says which mapping the packet should have been sent to: the one
// for where it comes from, if there is one.
func (f *finder) otherMapping(d dropped, box evidence.Change, bound []evidence.Binding) string {
	host, local := bound[0].Host, bound[0].Local
	text := fmt.Sprintf("%s is %s's mapping towards that alone (%s mapping)", d.Destination, host, box.Mapping)
	right := f.ev.Towards(d.Router, d.flow.Transport, host, local, d.Source)
	switch {
	case len(right) == 0:
		return fmt.Sprintf("had %s sent it: %s; it has none towards %s", bound[0].Peer, text, d.Source)
	case right[0].Since.After(d.Time):
		return fmt.Sprintf("had %s sent it: %s; towards %s it has %s, %s later", bound[0].Peer, text, d.Source, right[0].Outside, later(d.Time, right[0].Since))
	}
	return fmt.Sprintf("had it been sent to %s: %s's mapping towards %s (%s mapping)", right[0].Outside, host, d.Source, box.Mapping)
}

func earliest(bound []evidence.Binding) (first evidence.Binding, ok bool) {
	for n, b := range bound {
		if n == 0 || b.Since.Before(first.Since) {
			first = b
		}
	}
	return first, len(bound) > 0
}

func later(from, to time.Time) time.Duration { return to.Sub(from).Round(10 * time.Microsecond) }
