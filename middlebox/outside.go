package middlebox

import (
	"slices"

	"github.com/google/nftables"
)

// outside sees packets as they leave, with their external address. What leaves
// makes and refreshes mappings, and is remembered where filtering needs it.
func (g *generator) outside() {
	if !g.b.Translates() || g.plain() {
		return
	}
	rules := []rule{}
	if g.joined() {
		rules = append(rules, g.refresh(oif(g.LAN))...)
	}
	if g.letsIn(TCP) {
		terms := []term{oif(g.LAN), l4proto(TCP), notEstablished(), dnatted(), snatted()}
		if g.b.Hairpin {
			terms = append(terms, notMarked(hairpinMark))
		}
		rules = append(rules, rule{
			comment: "The two ends have a connection by another external port: connection tracking would give this one another source.",
			terms:   append(terms, g.stop(UnsolicitedRule, drop())...),
		})
	}
	if !g.b.Hairpin {
		rules = append(rules, rule{comment: "Only what leaves.", terms: []term{oifNot(g.WAN), accept()}})
	}
	rules = append(rules, rule{
		comment: "No internal address gets out, as that of a packet without a connection would.",
		terms:   append(g.leaving(), append([]term{addressNotAmong(source, g.firstWAN(), g.lastWAN())}, g.stop(UntranslatedRule, drop())...)...),
	})
	if g.tabled() {
		for _, p := range transports {
			rules = append(rules, g.learn(p)...)
			if g.b.Hairpin {
				rules = append(rules, g.hairpin(p)...)
			}
		}
	}
	g.chain("outside", "What leaves, as the outside sees it.",
		nftables.ChainTypeFilter, nftables.ChainHookPostrouting, "postrouting", priorityOutside, rules)
}

// leaving begins a rule about what leaves: where nothing else gets so far it
// needn't say so.
func (g *generator) leaving(terms ...term) []term {
	if g.b.Hairpin {
		return append([]term{oif(g.WAN)}, terms...)
	}
	return terms
}

// learn keeps the mapping of what goes out.
func (g *generator) learn(p Protocol) []rule {
	began, outside := g.key(originalSource, originalSourcePort), []loader{source, sourcePort}
	rules := []rule{}
	if p == TCP {
		sent := func(terms ...term) []term {
			return g.leaving(append([]term{l4proto(TCP), direction(original)}, terms...)...)
		}
		rules = append(rules,
			rule{
				comment: "A TCP connection keeps its external port.",
				terms:   sent(established(), notMarked(closingMark), updateMapping(TCP, outside, began, 0)),
			},
			rule{
				comment: "Not so long while it isn't established.",
				terms:   sent(notEstablished(), addMapping(TCP, outside, began, g.b.TCPTransitory)),
			})
		return rules
	}
	if g.outbound() {
		rules = append(rules, rule{comment: "Sending keeps it open.", terms: g.leaving(l4proto(p), updateSet(sendingSet(p), outside...))})
	}
	rules = append(rules, rule{
		comment: "An external port belongs to the endpoint that sends from it.",
		terms:   g.leaving(l4proto(p), direction(original), updateMapping(p, outside, began, 0)),
	})
	if g.letsIn(p) && !g.apart(p) {
		rules = append(rules, rule{
			comment: "Also in answer to who came uninvited.",
			terms:   g.leaving(l4proto(p), direction(reply), updateMapping(p, outside, g.key(replySource, replySourcePort), 0)),
		})
	}
	if g.apart(p) {
		rules = append(rules, rule{
			comment: "Who is sent to comes back in the same flow.",
			terms:   g.leaving(l4proto(p), updateSet(flowsSet(p), source, sourcePort, destination, destPort)),
		})
	}
	return rules
}

// hairpin does the same between hosts inside that talk by their external
// endpoints, and filters what reaches the receiver as if it came from outside.
func (g *generator) hairpin(p Protocol) []rule {
	inside, outside := []term{oif(g.LAN), hairpinned(), l4proto(p)}, []loader{source, sourcePort}
	on := func(terms ...term) []term { return append(append([]term{}, inside...), terms...) }
	rules := []rule{{comment: "Hairpin: the sender's mapping.", terms: on(direction(original), updateMapping(p, outside, g.key(originalSource, originalSourcePort), 0))}}
	if p == UDP && g.outbound() {
		rules = append(rules, rule{comment: "Sending keeps it open.", terms: on(updateSet(sendingSet(p), outside...))})
	}
	switch {
	case !g.turns():
		rules = append(rules, rule{comment: "That of who answers.", terms: on(direction(reply), updateMapping(p, outside, g.key(replySource, replySourcePort), 0))})
	case p == TCP:
		rules = append(rules, rule{comment: "That of who answers.", terms: on(direction(reply), refreshMapping(p, source, sourcePort, 0))})
	}
	switch {
	case g.turns() && g.filtering(p) == FilterAddressAndPortDependent:
		return append(rules, g.turned(p, on)...)
	case g.filtering(p) == FilterEndpointIndependent:
		return rules
	}
	rules = append(rules,
		rule{comment: "Whom it sends to.", terms: on(direction(original), updateSet(contactedSet(p), g.peer(p, originalSource, originalSourcePort, originalDest, originalDestPort)...))},
		rule{comment: "Whom it answers.", terms: on(direction(reply), updateSet(contactedSet(p), g.peer(p, replySource, replySourcePort, replyDest, replyDestPort)...))},
		rule{comment: "Filtered as if it came from outside.", terms: on(append([]term{
			notInSet(contactedSet(p), g.peer(p, destination, destPort, source, sourcePort)...)}, g.stop(UnsolicitedRule, drop())...)...)})
	return rules
}

// turned filters by external endpoints what turns around in a box that has
// several of them for an internal one.
func (g *generator) turned(p Protocol, on func(...term) []term) (rules []rule) {
	for _, way := range []struct {
		direction byte
		to        []loader
	}{{original, []loader{originalDest, originalDestPort}}, {reply, []loader{replyDest, replyDestPort}}} {
		from := []loader{source, sourcePort}
		rules = append(rules,
			rule{comment: "Whom it sends to.", terms: on(direction(way.direction), updateSet(turnedSet(p), append(slices.Clone(from), way.to...)...))},
			rule{comment: "Filtered as if it came from outside.", terms: on(append([]term{direction(way.direction),
				notInSet(turnedSet(p), append(slices.Clone(way.to), from...)...)}, g.stop(UnsolicitedRule, drop())...)...)})
	}
	return rules
}
