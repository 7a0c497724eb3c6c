package middlebox

import (
	"fmt"

	"github.com/google/nftables"
)

// Names of the sets. Those of a mapping are per protocol.
func externalMap(p Protocol) string  { return "external-" + string(p) }
func internalMap(p Protocol) string  { return "internal-" + string(p) }
func contactedSet(p Protocol) string { return "contacted-" + string(p) }
func flowsSet(p Protocol) string     { return "flows-" + string(p) }
func sendingSet(p Protocol) string   { return "sending-" + string(p) }

// filtering returns how a protocol is filtered.
func (g *generator) filtering(p Protocol) Filtering { return g.b.FilteringOf(p) }

// letsIn says whether a box that translates lets in who was not asked, if
// there is a mapping.
func (g *generator) letsIn(p Protocol) bool {
	return g.tabled() && g.filtering(p) != FilterAddressAndPortDependent
}

// remembers says whether the box itself keeps to whom an endpoint has sent.
// Where it needn't, connection tracking does.
func (g *generator) remembers(p Protocol) bool {
	switch g.filtering(p) {
	case FilterAddressDependent:
		return true
	case FilterAddressAndPortDependent:
		return g.tabled() && (g.b.Hairpin && !g.turns() || p == UDP && g.b.Refresh == RefreshOutbound)
	}
	return false
}

// apart says whether one internal endpoint can have two external ones to one
// peer: connection tracking then has to keep what comes in uninvited apart
// from the flow that goes out. A TCP connection has one, whoever began it.
func (g *generator) apart(p Protocol) bool {
	return p == UDP && g.letsIn(p) && g.b.Mapping != MapEndpointIndependent
}

// key is what a mapping belongs to: an internal endpoint and, as the mapping
// depends on it, the destination's address and port.
func (g *generator) key(address, port loader) []loader {
	key, peer, peerPort := []loader{address, port}, loader(destination), loader(destPort)
	if g.b.Hairpin { // what turns around has another by now
		peer, peerPort = originalDest, originalDestPort
	}
	if g.b.Mapping != MapEndpointIndependent {
		key = append(key, peer)
	}
	if g.b.Mapping == MapAddressAndPortDependent {
		key = append(key, peerPort)
	}
	return key
}

// turns says whether a box that hairpins gives an internal endpoint another
// external one for what turns around.
func (g *generator) turns() bool { return g.b.Hairpin && g.b.Mapping != MapEndpointIndependent }

// turnedSet is the name of what filters that then, address and port.
func turnedSet(p Protocol) string { return "turned-" + string(p) }

// peer is what filtering looks at: an internal endpoint, the peer's address
// and, as the filtering depends on it, the peer's port.
func (g *generator) peer(p Protocol, address, port, peer, peerPort loader) []loader {
	key := []loader{address, port, peer}
	if g.filtering(p) == FilterAddressAndPortDependent {
		key = append(key, peerPort)
	}
	return key
}

// outbound says whether only what leaves keeps a mapping open. What comes in
// prolongs its flow in connection tracking all the same, and with that the
// mapping, so that nobody else gets the port as long as the flow lives: whether
// the mapping lets anything in is then kept apart.
func (g *generator) outbound() bool { return g.tabled() && g.b.Refresh == RefreshOutbound }

// declareSets adds the sets that the other chains use.
func (g *generator) declareSets() {
	for _, p := range transports {
		timeout := g.timer(p) + g.slack(p)
		g.fresh(p)
		if g.tabled() {
			key := endpoints(len(g.key(source, sourcePort)))
			g.rs.sets = append(g.rs.sets,
				set{name: externalMap(p), timeout: timeout, key: key, data: endpoints(2), comment: fmt.Sprintf("The %s mapping: internal endpoint to external one.", p)},
				set{name: internalMap(p), timeout: timeout, key: endpoints(2), data: key, comment: "The same, the other way round."})
		}
		if g.remembers(p) {
			key := endpoints(len(g.peer(p, source, sourcePort, destination, destPort)))
			g.rs.sets = append(g.rs.sets, set{name: contactedSet(p), timeout: timeout, key: key, comment: "Internal endpoint . whom it sent to."})
		}
		if g.turns() && g.filtering(p) == FilterAddressAndPortDependent {
			g.rs.sets = append(g.rs.sets, set{name: turnedSet(p), timeout: timeout, key: endpoints(4), comment: "External endpoint . the external one inside that it sent to."})
		}
		if p == UDP && g.outbound() {
			g.rs.sets = append(g.rs.sets, set{name: sendingSet(p), timeout: timeout, key: endpoints(2), comment: "External endpoints from which something was sent."})
		}
		if g.apart(p) {
			g.rs.sets = append(g.rs.sets, set{name: flowsSet(p), timeout: timeout, key: endpoints(4), comment: "External endpoint . whom it sent to."})
		}
	}
}

// early sees packets from outside before connection tracking does.
func (g *generator) early() {
	rules := []rule{}
	if !g.tabled() {
		return
	}
	if g.outbound() {
		rules = append(rules, g.closed()...)
	}
	if g.apart(UDP) {
		rules = append(rules, rule{
			comment: "Uninvited: not to be taken for, nor to clash with, a flow from inside to the same peer.",
			terms:   []term{iif(g.WAN), l4proto(UDP), notInSet(flowsSet(UDP), destination, destPort, source, sourcePort), zone(destPort)},
		})
	}
	if g.turns() {
		rules = append(rules, rule{
			comment: "Hairpin: an answer is mapped by itself, and no answer to connection tracking.",
			terms:   []term{iif(g.LAN), l4proto(UDP), addressAmong(destination, g.firstWAN(), g.lastWAN()), zone(destPort)},
		})
	}
	g.chain("early", "What comes in, before connection tracking sees it.",
		nftables.ChainTypeFilter, nftables.ChainHookPrerouting, "prerouting", priorityEarly, rules)
}

// closed ends what comes to an external endpoint from which nothing was sent of
// late.
func (g *generator) closed() []rule {
	to := func(link string, terms ...term) []term {
		return append([]term{iif(link), addressAmong(destination, g.firstWAN(), g.lastWAN()), l4proto(UDP)}, terms...)
	}
	unsent := notInSet(sendingSet(UDP), destination, destPort)
	held := refreshMapping(UDP, destination, destPort, 0)
	const kept = "Of a flow that now lives on: until it ends, nobody else gets its port."
	rules := append(g.unsolicited("No mapping: connection tracking must not hear of it, or it would refresh what it has.", to(g.WAN, unsent)...),
		rule{comment: kept, terms: to(g.WAN, held)})
	if !g.b.Hairpin {
		return rules
	}
	return append(rules,
		rule{comment: "Hairpin: no mapping either.", terms: to(g.LAN, append([]term{unsent}, g.stop(HairpinRule, drop())...)...)},
		rule{comment: kept, terms: to(g.LAN, held)})
}

// refresh lets packets from outside that were let in keep the mapping and the
// filter's memory alive, as connection tracking does for its flows.
func (g *generator) refresh(in term) (rules []rule) {
	if g.b.Refresh == RefreshOutbound {
		return nil
	}
	if g.tabled() {
		rules = append(rules, rule{
			comment: "Of a flow that began inside.",
			terms:   []term{in, l4proto(UDP), direction(reply), refreshMapping(UDP, replyDest, replyDestPort, 0)},
		})
	}
	if g.letsIn(UDP) {
		rules = append(rules, rule{
			comment: "Of a flow that began outside.",
			terms:   []term{in, l4proto(UDP), direction(original), refreshMapping(UDP, originalDest, originalDestPort, 0)},
		})
	}
	if g.remembers(UDP) {
		rules = append(rules, rule{
			comment: "Whoever is let in stays known.",
			terms:   []term{in, l4proto(UDP), updateSet(contactedSet(UDP), g.peer(UDP, destination, destPort, source, sourcePort)...)},
		})
	}
	if g.apart(UDP) {
		rules = append(rules, rule{
			comment: "So does the flow.",
			terms:   []term{in, l4proto(UDP), direction(reply), updateSet(flowsSet(UDP), replyDest, replyDestPort, source, sourcePort)},
		})
	}
	return rules
}

// refreshes adds a chain for that, unless the one for what leaves has it, which
// saves every packet a chain.
func (g *generator) refreshes() {
	if g.joined() {
		return
	}
	g.chain("refresh", "What was let in keeps what let it in alive.",
		nftables.ChainTypeFilter, nftables.ChainHookForward, "forward", priorityRefresh, g.refresh(iif(g.WAN)))
}

// joined says whether what goes inside is looked at together with what goes
// outside. With hairpin that could be from inside too.
func (g *generator) joined() bool { return g.tabled() && !g.b.Hairpin }
