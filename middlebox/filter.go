package middlebox

import (
	"fmt"

	"github.com/google/nftables"
)

// input protects the box itself. A packet to its external address that nothing
// asked for must end here, before connection tracking confirms it at the end
// of the hook: a confirmed entry takes the tuple that a punch from inside needs.
func (g *generator) input() {
	rules := []rule{}
	if g.b.Translates() && !g.b.Hairpin {
		for _, p := range []Protocol{UDP, TCP} {
			rules = append(rules, rule{
				comment: "No hairpin: inside, the external address leads nowhere.",
				terms:   append([]term{iif(g.LAN), addressAmong(destination, g.firstWAN(), g.lastWAN()), l4proto(p)}, g.stop(HairpinRule, drop())...),
			})
		}
	}
	rules = append(rules, rule{comment: "The inside may talk to the box.", terms: []term{iifNot(g.WAN), accept()}})
	rules = append(rules, g.blocks()...)
	if g.b.Unsolicited == ConfirmUnsolicited {
		rules = append(rules, rule{comment: "So may the outside: the box answers for itself.", terms: []term{accept()}})
	} else if g.filters() {
		rules = append(rules, rule{comment: "Answers to the box's own packets.", terms: []term{established(), accept()}})
		rules = append(rules, g.unsolicited("Silently, and before it is confirmed: this is what lets a punch succeed.")...)
	}
	g.chain("input", "To the box itself.", nftables.ChainTypeFilter, nftables.ChainHookInput, "input", priorityFilter, rules)
}

// filters says whether anything from outside is stopped for being uninvited. A
// NAT always does, since it knows no inside for what it has no mapping for.
func (g *generator) filters() bool {
	return g.b.Translates() || g.b.Filtering != FilterEndpointIndependent
}

// forward decides between inside and outside.
func (g *generator) forward() {
	rules := []rule{{comment: "Inside stays inside.", terms: []term{iif(g.LAN), oif(g.LAN), accept()}}}
	rules = append(rules, g.blocks()...)
	rules = append(rules, g.denials()...)
	adf := g.b.Filtering == FilterAddressDependent
	if adf {
		rules = append(rules, rule{
			comment: "Who is sent to may answer from any port.",
			terms:   []term{iif(g.LAN), oif(g.WAN), l4proto(UDP), updateSet(contactedSet, source, sourcePort, destination)},
		})
	}
	rules = append(rules,
		rule{comment: "What belongs to a flow.", terms: []term{established(), accept()}},
		rule{comment: "Whatever starts inside.", terms: []term{iif(g.LAN), accept()}})
	switch {
	case adf:
		terms := []term{iif(g.WAN), l4proto(UDP)}
		if g.b.Translates() {
			terms = append(terms, dnatted())
		}
		rules = append(rules, rule{
			comment: "address-dependent: from an address that the endpoint has sent to.",
			terms:   append(terms, inSet(contactedSet, destination, destPort, source), accept()),
		})
	case g.mapped():
		rules = append(rules, rule{comment: "endpoint-independent: whoever sends to a mapped port.", terms: []term{iif(g.WAN), dnatted(), accept()}})
	}
	if g.filters() {
		rules = append(rules, g.unsolicited("Nothing inside asked for it.")...)
	}
	g.chain("forward", "Between inside and outside.", nftables.ChainTypeFilter, nftables.ChainHookForward, "forward", priorityFilter, rules)
}

// blocks stops protocols, before anything else is looked at: flows that exist
// already are stopped too.
func (g *generator) blocks() (rules []rule) {
	for _, p := range g.b.Block {
		rules = append(rules, rule{
			comment: fmt.Sprintf("No %s, in flows that exist already neither.", p),
			terms:   append([]term{l4proto(p)}, g.stop(BlockRule(p), drop())...),
		})
	}
	return rules
}

// denials stops what goes to a denied host and what comes from it.
func (g *generator) denials() (rules []rule) {
	for _, d := range g.b.Deny {
		for _, a := range g.Denied[d.Host] {
			for _, way := range []struct{ address, port field }{{destination, destPort}, {source, sourcePort}} {
				terms := []term{addressIs(way.address, a)}
				if d.Protocol != "" {
					terms = append(terms, l4proto(d.Protocol))
				}
				if d.Port != 0 {
					terms = append(terms, portIs(way.port, d.Port))
				}
				rules = append(rules, rule{
					comment: fmt.Sprintf("deny %v.", d),
					terms:   append(terms, g.stop(DenyRule(d.Host), drop())...),
				})
			}
		}
	}
	return rules
}

// unsolicited ends what comes from outside.
func (g *generator) unsolicited(comment string) []rule {
	if g.b.Unsolicited == RejectUnsolicited {
		return []rule{
			{comment: "Refused with a reset, and not confirmed either.", terms: append([]term{iif(g.WAN), l4proto(TCP)}, g.stop(UnsolicitedRule, rejectTCP())...)},
			{comment: "Refused, and not confirmed either.", terms: append([]term{iif(g.WAN)}, g.stop(UnsolicitedRule, rejectICMP())...)},
		}
	}
	return []rule{{comment: comment, terms: append([]term{iif(g.WAN)}, g.stop(UnsolicitedRule, drop())...)}}
}

// refresh lets packets from outside that were let in keep the mapping alive,
// as connection tracking does for its flows.
func (g *generator) refresh() {
	if !g.mapped() {
		return
	}
	g.chain("refresh", "What was let in keeps the mapping alive.",
		nftables.ChainTypeFilter, nftables.ChainHookForward, "forward", priorityRefresh, []rule{
			{
				comment: "In a flow that began outside.",
				terms:   []term{iif(g.WAN), l4proto(UDP), direction(original), updateMap(mappedMap, originalDestPort, destination, destPort)},
			},
			{
				comment: "In a flow that began inside.",
				terms:   []term{iif(g.WAN), l4proto(UDP), direction(reply), updateMap(mappedMap, replyDestPort, destination, destPort)},
			},
		})
}
