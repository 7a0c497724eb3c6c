package middlebox

import (
	"time"

	"github.com/google/nftables"
)

// plain says whether all flows through a box that keeps its mappings begin
// inside and end outside, and packets both ways keep them. Both tuples of
// connection tracking then say all about a mapping: it is made where the first
// packet gets its port, and kept where packets are forwarded.
func (g *generator) plain() bool {
	return g.tabled() && !g.b.Hairpin && !g.letsIn(UDP) && !g.letsIn(TCP) && g.b.Refresh == RefreshBoth && !g.b.PortMapping
}

func freshSet(p Protocol) string { return "fresh-" + string(p) }

// slack is how much longer than its timer a mapping of a plain box may live: a
// packet refreshes nothing while the mapping was refreshed so short a time ago.
// Who may come in is not concerned, since connection tracking says that.
func (g *generator) slack(p Protocol) time.Duration {
	if !g.plain() {
		return 0
	}
	return min(time.Second, g.timer(p)/20)
}

// timer is how long a silent flow of a protocol lives.
func (g *generator) timer(p Protocol) time.Duration {
	if p == TCP {
		return g.b.TCPEstablished
	}
	return g.b.UDPTimeout
}

// fresh declares the set of what needs no refreshing. Its key is a packet's own
// header, which costs less to read than connection tracking's tuples.
func (g *generator) fresh(p Protocol) {
	if !g.plain() {
		return
	}
	s := set{name: freshSet(p), timeout: g.slack(p), key: endpoints(4), comment: "Source and destination of packets whose mapping was just refreshed."}
	if p == UDP {
		s.key, s.typeof = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInteger}, header(p)
	}
	g.rs.sets = append(g.rs.sets, s)
}

// header is the key of the fresh set: of a datagram, both ports in one piece,
// which is read in less.
func header(p Protocol) []loader {
	if p == UDP {
		return []loader{source, destination, bothPorts}
	}
	return []loader{source, sourcePort, destination, destPort}
}

// isFresh matches a packet whose mapping was just refreshed.
func isFresh(p Protocol) term { return inSet(freshSet(p), header(p)...) }

// beFresh notes that a packet has refreshed its mapping. In a TCP connection it
// does so for the other way, too, which may refresh nothing itself.
func beFresh(p Protocol) []term {
	terms := []term{updateSet(freshSet(p), header(p)...)}
	if p == TCP {
		terms = append(terms, updateSet(freshSet(p), destination, destPort, source, sourcePort))
	}
	return terms
}

// firstLife is how long a mapping lives after the first packet of a flow, 0
// being the maps' own.
func (g *generator) firstLife(p Protocol) time.Duration {
	if p == TCP {
		return g.b.TCPTransitory
	}
	return 0
}

// flows keeps mappings by what connection tracking knows, which has the external
// endpoint as the destination of the reply.
func (g *generator) flows() (rules []rule) {
	if !g.tabled() {
		return nil
	}
	outside := []loader{replyDest, replyDestPort}
	key := []loader{originalSource, originalSourcePort, originalDest, originalDestPort}[:len(g.key(source, sourcePort))]
	translated := addressAmong(replyDest, g.firstWAN(), g.lastWAN())
	on := func(p Protocol, terms ...term) []term { return append([]term{l4proto(p)}, terms...) }
	if g.plain() {
		rules = append(rules,
			rule{comment: "Packets both ways keep a mapping, and this one was just kept.", terms: on(UDP, valid(), isFresh(UDP), accept())},
			rule{
				comment: "An external port belongs to the endpoint that sends from it.",
				terms:   append(on(UDP, translated, updateMapping(UDP, outside, key, 0)), append(beFresh(UDP), accept())...),
			},
			rule{comment: "So it is with a TCP connection that goes on.", terms: on(TCP, valid(), ongoing(), isFresh(TCP), accept())})
	}
	rules = append(rules,
		rule{comment: "A TCP connection ends.", terms: on(TCP, tcpFlags(tcpFIN|tcpRST), translated, notMarked(hairpinMark), setMark(closingMark))},
		rule{comment: "Then its external port isn't kept for long.", terms: on(TCP, marked(closingMark), translated, updateMapping(TCP, outside, key, g.b.TCPTransitory))})
	if g.letsIn(TCP) {
		rules = append(rules, g.begunOutside()...)
	}
	if !g.plain() {
		return rules
	}
	stop, foreign := g.stop(UntranslatedRule, drop()), addressNotAmong(replyDest, g.firstWAN(), g.lastWAN())
	return append(rules,
		rule{
			comment: "A TCP connection keeps its external port.",
			terms: append(on(TCP, direction(original), translated, established(), notMarked(closingMark),
				updateMapping(TCP, outside, key, 0)), beFresh(TCP)...),
		},
		rule{
			comment: "Not so long while it isn't established.",
			terms:   on(TCP, direction(original), translated, notEstablished(), addMapping(TCP, outside, key, g.b.TCPTransitory)),
		},
		rule{comment: "No internal address gets out, as that of a packet without a connection would.", terms: append([]term{oif(g.WAN), invalid()}, stop...)},
		rule{comment: "Nor that of a flow from before the translation.", terms: append([]term{oif(g.WAN), established(), foreign}, stop...)},
		rule{comment: "Nor an external address that the box had before.", terms: append([]term{oif(g.WAN), snatted(), foreign}, stop...)})
}

// begunOutside keeps the mapping that a TCP connection from outside came in by.
// A SYN or its answer prolongs nothing, since anybody can have them; both
// directions of an established connection do.
func (g *generator) begunOutside() []rule {
	on := func(terms ...term) []term {
		all := []term{l4proto(TCP), dnatted()}
		if g.b.Hairpin {
			all = append(all, notMarked(hairpinMark))
		}
		if g.b.PortMapping {
			all = append(all, notMarked(MappedMark)) // it keeps itself
		}
		return append(all, terms...)
	}
	return []rule{
		{comment: "One that began outside ends.", terms: on(tcpFlags(tcpFIN|tcpRST), setMark(closingMark))},
		{comment: "The same.", terms: on(marked(closingMark), refreshMapping(TCP, originalDest, originalDestPort, g.b.TCPTransitory))},
		{comment: "It keeps the external port that it came to.", terms: on(assured(), notMarked(closingMark), refreshMapping(TCP, originalDest, originalDestPort, 0))},
	}
}

// endpoints returns the type of a key of n parts, an address and a port in
// turn.
func endpoints(n int) []nftables.SetDatatype {
	all := []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService}
	return all[:n]
}
