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
	if g.b.Translates() {
		comment := "No hairpin: inside, the external address leads nowhere."
		if g.b.Hairpin {
			comment = "Nobody inside has that external endpoint."
		}
		for _, p := range transports {
			rules = append(rules, rule{
				comment: comment,
				terms:   append([]term{iif(g.LAN), addressAmong(destination, g.firstWAN(), g.lastWAN()), l4proto(p)}, g.stop(HairpinRule, drop())...),
			})
		}
	}
	rules = append(rules, g.proxyInput()...)
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
	return g.b.Translates() || g.filtering(UDP) != FilterEndpointIndependent || g.filtering(TCP) != FilterEndpointIndependent
}

// forward decides between inside and outside.
func (g *generator) forward() {
	// Most packets belong to a flow. Nothing before that rule stops them, unless
	// the behaviour says so.
	rules := []rule{}
	if g.polices() {
		rules = append(rules, g.inside()...)
	}
	rules = append(rules, g.proxied()...)
	rules = append(rules, g.blocks()...)
	rules = append(rules, g.denials()...)
	rules = append(rules, g.rates()...)
	rules = append(rules, g.idle()...)
	rules = append(rules, g.allowed()...)
	rules = append(rules, g.contacts()...)
	if g.remembers(UDP) && g.b.Refresh == RefreshOutbound {
		rules = append(rules, rule{
			comment: fmt.Sprintf("%s: from whom the endpoint has sent to of late, whatever came in since.", g.b.Filtering),
			terms:   []term{iif(g.WAN), l4proto(UDP), g.remembered(UDP), accept()},
		})
		rules = append(rules, g.unsolicited("Of nobody it has.", iif(g.WAN), l4proto(UDP))...)
	}
	rules = append(rules, g.flows()...)
	rules = append(rules, g.mapped()...)
	rules = append(rules,
		rule{comment: "What belongs to a flow.", terms: []term{established(), accept()}},
		rule{comment: "Whatever starts inside.", terms: []term{iif(g.LAN), accept()}})
	// "Whatever starts inside" covers what stays inside too.
	if g.filters() {
		for _, p := range transports {
			rules = append(rules, g.uninvited(p)...)
		}
		if !g.b.Translates() && g.filtering(UDP) == FilterEndpointIndependent {
			rules = append(rules, rule{comment: "Of all else, nothing is filtered.", terms: []term{iif(g.WAN), l4protoNot(TCP), accept()}})
		}
		rules = append(rules, g.unsolicited("Nothing inside asked for it.")...)
	}
	g.chain("forward", "Between inside and outside.", nftables.ChainTypeFilter, nftables.ChainHookForward, "forward", priorityFilter, rules)
}

// inside lets through what goes from one network inside to another, which is no
// business of the police. What turns around in the box is, as if it had left and
// come in again.
func (g *generator) inside() []rule {
	within := func(terms ...term) []term { return append([]term{iif(g.LAN), oif(g.LAN)}, terms...) }
	const comment = "Inside stays inside."
	if !g.b.Hairpin {
		return []rule{{comment: comment, terms: within(accept())}}
	}
	return []rule{
		{comment: comment, terms: within(notMarked(hairpinMark), accept())},
		{comment: "Also what belongs to no flow, and so has no mark: the answers may have gone another way.", terms: within(invalid(), accept())},
	}
}

// contacts remembers whom the inside sends to, where filtering looks at that.
func (g *generator) contacts() (rules []rule) {
	const comment = "Who is sent to may answer."
	sent := func(p Protocol, terms ...term) []term {
		return append([]term{iif(g.LAN), oif(g.WAN), l4proto(p)}, terms...)
	}
	if g.remembers(UDP) {
		rules = append(rules, rule{comment: comment, terms: sent(UDP, updateSet(contactedSet(UDP), g.peer(UDP, source, sourcePort, destination, destPort)...))})
	}
	if g.remembers(TCP) {
		key := g.peer(TCP, source, sourcePort, destination, destPort)
		rules = append(rules,
			rule{comment: comment, terms: sent(TCP, established(), updateSet(contactedSet(TCP), key...))},
			rule{comment: "Not so long while nothing has come back.", terms: sent(TCP, notEstablished(), addToSet(contactedSet(TCP), g.b.TCPTransitory, key...))})
	}
	return rules
}

// remembered matches what comes from whom an endpoint has sent to.
func (g *generator) remembered(p Protocol) term {
	return inSet(contactedSet(p), g.peer(p, destination, destPort, source, sourcePort)...)
}

// uninvited lets in what begins outside and may, on a box that filters. Of TCP
// that is a SYN: prerouting has translated nothing else.
func (g *generator) uninvited(p Protocol) []rule {
	match := []term{iif(g.WAN), l4proto(p)}
	if g.b.Translates() {
		match = append(match, dnatted())
	}
	switch g.filtering(p) {
	case FilterAddressDependent:
		if p == TCP && !g.b.Translates() {
			match = append(match, notEstablished(), tcpFlags(tcpSYN|tcpRST)) // the reset may be of a SYN that was let in
		}
		return []rule{{comment: "address-dependent: from an address that the endpoint has sent to.", terms: append(match, g.remembered(p), accept())}}
	case FilterEndpointIndependent:
		if p == UDP && !g.b.Translates() {
			return nil // nothing stops it
		}
		return []rule{{comment: "endpoint-independent: whoever sends to the endpoint.", terms: append(match, accept())}}
	}
	return nil
}

// polices says whether the box stops packets of flows that exist.
func (g *generator) polices() bool {
	b := g.b
	return len(b.Block) > 0 || len(b.Deny) > 0 || len(b.Allow) > 0 || b.Proxy != NoProxy || b.UDPRate > 0 || b.TCPIdle > 0
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

// unsolicited ends what comes from outside, or what the given terms match. A
// reset refuses what might begin a connection alone: sent for a segment that
// doesn't fit into the one there is, in the name of a host inside, it would end
// that one, here and at the peer (iptables-extensions(8) warns of it, under
// REJECT).
func (g *generator) unsolicited(comment string, match ...term) []rule {
	if len(match) == 0 {
		match = []term{iif(g.WAN)}
	}
	on := func(terms ...term) []term { return append(append([]term{}, match...), terms...) }
	if g.b.Unsolicited == RejectUnsolicited {
		return []rule{
			{comment: "A reset would end the connection that this doesn't fit into.", terms: on(append([]term{l4proto(TCP), invalid()}, g.stop(UnsolicitedRule, drop())...)...)},
			{comment: "Refused with a reset, and not confirmed either.", terms: on(append([]term{l4proto(TCP)}, g.stop(UnsolicitedRule, rejectTCP())...)...)},
			{comment: "Refused, and not confirmed either.", terms: on(g.stop(UnsolicitedRule, rejectICMP())...)},
		}
	}
	return []rule{{comment: comment, terms: on(g.stop(UnsolicitedRule, drop())...)}}
}
