package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gauntlet/middlebox"
)

// story is the reasoning as it is told, each thing once; a nil one keeps
// nothing.
type story struct {
	lines []string
}

func (s *story) line(format string, args ...any) {
	if s == nil {
		return
	}
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.lines, text) {
		s.lines = append(s.lines, text)
	}
}

// lost tells of a datagram that doesn't reach a supernode.
func (s *story) lost(h, supernode *host, end arrival) {
	if s != nil {
		s.line("no datagram of %s reaches %s: %s", h.name, supernode.name, s.stopped(end))
	}
}

// check tells of a check that was lost.
func (s *story) check(m message, to netip.AddrPort, end arrival) {
	if s == nil {
		return
	}
	what := "check"
	if m.answer {
		what = "answer"
	}
	s.line("%s's %s to %v is lost: %s", m.from.name, what, to, s.stopped(end))
}

// stopped says why a packet didn't arrive.
func (s *story) stopped(end arrival) string {
	if s == nil {
		return ""
	}
	b, p := end.box, end.packet
	if b == nil {
		return fmt.Sprintf("%v means nothing outside the box that it is behind", p.To.Addr())
	}
	switch {
	case end.rule == "":
		return fmt.Sprintf("%s takes it for itself and remembers it, so that what is sent to %v from inside gets another port", b.name, p.From)
	case end.rule == middlebox.BlockRule(p.Protocol):
		return fmt.Sprintf("%s stops all %s", b.name, p.Protocol)
	case end.rule == middlebox.NotAllowedRule:
		return fmt.Sprintf("%s lets out nothing but %s", b.name, list(b.behaviour.Allow))
	case end.rule == middlebox.HairpinRule:
		return fmt.Sprintf("%s doesn't let a host inside reach %v, an external address of its own (no hairpin)", b.name, p.To.Addr())
	case end.rule == middlebox.NoPortRule:
		return fmt.Sprintf("%s has no port left", b.name)
	case end.rule != middlebox.UnsolicitedRule:
		return fmt.Sprintf("%s denies it (%s)", b.name, end.rule)
	case p.Protocol == middlebox.TCP:
		return fmt.Sprintf("%s lets in only TCP connections that were opened from inside", b.name)
	}
	return b.uninvited(p.From, p.To)
}

// uninvited says why a filter stopped a datagram, and what would have let it
// in.
func (b *box) uninvited(from, to netip.AddrPort) string {
	inside := to
	if b.behaviour.Translates() {
		var known bool
		if inside, known = b.owner[to]; !known {
			return fmt.Sprintf("%s has no mapping at %v: nothing inside sends from there", b.name, to)
		}
	}
	// A mapping for each destination has sessions of its own; what filters by
	// address counts what the internal endpoint has sent anywhere.
	filtering, has := b.behaviour.Filtering, list(b.sent[to])
	if filtering == middlebox.FilterAddressDependent {
		var hosts []netip.Addr
		for _, peer := range b.sent[inside] {
			if !slices.Contains(hosts, peer.Addr()) {
				hosts = append(hosts, peer.Addr())
			}
		}
		has = list(hosts)
	}
	if has == "" {
		has = "nobody"
	}
	text := fmt.Sprintf("%s filters (%s): to %v it lets in only %s, which were sent to from there, and not %v", b.name, filtering, to, has, from)
	if b.behaviour.Unsolicited == middlebox.RejectUnsolicited {
		text += "; the ICMP error that it answers with is ignored"
	}
	return text
}

func list[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, ", ")
}

// describe tells what is in front of an end.
func (s *story) describe(e End) {
	if len(e.Boxes) == 0 {
		s.line("%s is on the internet, with no box in front", e.Name)
	}
	for i, b := range e.Boxes {
		place := "is behind"
		if i > 0 {
			place = "and behind"
		}
		s.line("%s %s %s: %s", e.Name, place, b.Name, words(b.Behaviour))
	}
}

// words are a behaviour in the words of RFC 4787.
func words(b middlebox.Behaviour) string {
	parts := []string{"no translation"}
	if b.Translates() {
		parts[0] = string(b.Mapping) + " mapping"
		if b.Ports != "" {
			parts = append(parts, string(b.Ports)+" ports")
		}
	}
	switch b.Filtering {
	case "", middlebox.FilterEndpointIndependent:
		parts = append(parts, "no filtering of UDP by who sends (endpoint-independent)")
	default:
		parts = append(parts, string(b.Filtering)+" filtering")
	}
	if b.Hairpin {
		parts = append(parts, "hairpin")
	}
	if b.Unsolicited == middlebox.ConfirmUnsolicited {
		parts = append(parts, "answers unsolicited packets itself")
	}
	for _, p := range b.Block {
		parts = append(parts, "stops all "+string(p))
	}
	if len(b.Allow) > 0 {
		parts = append(parts, "lets out "+list(b.Allow)+" alone")
	}
	if len(b.Deny) > 0 {
		parts = append(parts, "denies "+list(b.Deny))
	}
	return strings.Join(parts, ", ")
}
