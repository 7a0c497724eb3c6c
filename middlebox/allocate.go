package middlebox

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
)

// Names of the chains that give out ports.
const mappingChain = "mapping"

// transports are the protocols that a NAT maps port by port.
var transports = []Protocol{UDP, TCP}

// blockChain is the name of the chain that chooses a port of an internal
// address's block.
const blockChain = "block"

func allocateChain(p Protocol) string { return "allocate-" + string(p) }
func tryChain(p Protocol) string      { return "try-" + string(p) }

// mappings is the part of the rules that says which external endpoint an
// internal one gets. The mapping itself is kept in two maps that are each
// other's inverse; the chains here see only the first packet of a flow.
func (g *generator) mappings() {
	rules := []rule{}
	for _, p := range transports {
		rules = append(rules, g.asked(p)...)
		rules = append(rules, rule{
			comment: fmt.Sprintf("%s: what has a mapping keeps it.", g.b.Mapping),
			terms:   []term{l4proto(p), g.snatToKept(p)},
		})
		terms := []term{l4proto(p)}
		if g.marksAddress() {
			terms = append(terms, setPacketMark(g.drawn()))
		}
		rules = append(rules, rule{
			comment: fmt.Sprintf("A new one, pool: %s.", g.b.Pool),
			terms:   append(terms, goTo(allocateChain(p))),
		})
	}
	g.part(mappingChain, "The mapping of the first packet of a flow.", append(rules, rule{
		comment: "What has no ports.", terms: []term{snatTo(g.firstWAN(), g.lastWAN(), true, false)},
	}))
	if g.b.Ports == BlockPorts {
		g.blockPorts()
	}
	for _, p := range transports {
		g.allocate(p)
	}
}

// marksAddress says whether the packet's mark is the external address that its
// mapping shall have: several tries have it then, and it is drawn once. With
// ports by block the mark is the port.
func (g *generator) marksAddress() bool { return len(g.WANAddrs) > 1 && g.b.Ports != BlockPorts }

// drawn is one of the external addresses, by the internal one or by chance.
func (g *generator) drawn() drawnAddress {
	return drawnAddress{first: g.firstWAN(), count: uint32(len(g.WANAddrs)), paired: g.b.Pool == PairedPool}
}

// external is the address of a packet's new mapping.
func (g *generator) external() choice {
	switch {
	case len(g.WANAddrs) == 1:
		return fixedAddress(g.firstWAN())
	case g.marksAddress():
		return markedAddress{}
	}
	return g.drawn()
}

// allocate adds the chains that give an external endpoint.
func (g *generator) allocate(p Protocol) {
	rules, tries := []rule{}, []rule{}
	free := func(port choice) term { return g.snatToFree(p, g.external(), port) }
	random := portNumber{from: firstPort, count: ports}
	switch g.b.Ports {
	case PreservePorts:
		rules = append(rules, rule{
			comment: "ports: preserve. The internal one, if no other endpoint has it.",
			terms:   []term{free(samePort{})},
		})
		tries = []rule{{comment: "Else any that is free.", terms: []term{free(random)}}}
	case SequentialPorts:
		next := portNumber{from: firstPort, count: ports, next: true}
		if len(g.WANAddrs) == 1 {
			tries = []rule{{comment: "ports: sequential. The next.", terms: []term{free(next)}}}
			break
		}
		for _, a := range g.WANAddrs { // each of which counts by itself
			tries = append(tries, rule{
				comment: fmt.Sprintf("ports: sequential. The next of %v.", a),
				terms:   []term{packetMarkIs(number(a)), g.snatToFree(p, fixedAddress(a), next)},
			})
		}
	case ParityPorts:
		tries = []rule{
			{comment: "ports: parity. Even to even.", terms: []term{parity(sourcePort, 0), free(portNumber{from: firstPort, count: ports, parity: even})}},
			{comment: "Odd to odd.", terms: []term{parity(sourcePort, 1), free(portNumber{from: firstPort, count: ports, parity: odd})}},
		}
	case BlockPorts:
		tries = []rule{
			{comment: "ports: block. One of those of the internal address.", terms: []term{jump(blockChain)}},
			{comment: "If it is free.", terms: []term{free(markedPort{})}},
		}
	default:
		tries = []rule{{comment: "ports: random. Any that is free.", terms: []term{free(random)}}}
	}
	for range portTries {
		rules = append(rules, rule{comment: "Try.", terms: []term{jump(tryChain(p))}})
	}
	rules = append(rules, rule{comment: "No port is left.", terms: g.stop(NoPortRule, drop())})
	g.part(tryChain(p), fmt.Sprintf("One try for a %s port.", p), tries)
	g.part(allocateChain(p), fmt.Sprintf("A %s port.", p), rules)
}

// blockPorts adds the chain that makes a port of the block of a packet's source
// its mark. It is one for both protocols and all external addresses, since
// there may be many internal ones.
func (g *generator) blockPorts() {
	networks := append([]netip.Prefix{g.LANPrefix}, g.Routed...)
	blocks := Subscribers(g.b.PortBlock)
	rules := []rule{}
	for n := range blocks + measuring*len(networks) {
		inside, ok := nth(networks[n%len(networks)], n/len(networks)+firstInside)
		if !ok || g.Inside > 0 && n/len(networks) >= g.Inside {
			continue
		}
		comment := fmt.Sprintf("The block of %v.", inside)
		if n >= blocks {
			comment = fmt.Sprintf("%v may be that of a measuring point, while nobody else sends.", inside)
		}
		port := portNumber{from: uint32(firstPort + n%blocks*g.b.PortBlock), count: uint32(g.b.PortBlock)}
		rules = append(rules, rule{comment: comment, terms: []term{addressIs(source, inside), setPacketMark(port), goBack()}})
	}
	g.part(blockChain, "A port of an internal address.", append(rules, rule{comment: "It has no block.", terms: g.stop(NoPortRule, drop())}))
}

// firstInside is the first address of a network inside that somebody can have:
// the one before is the box's own, or that of a firewall further in. measuring
// is how many measuring points a network has at most, which come after all hosts:
// two of the box, three of those behind it.
const (
	firstInside = 2
	measuring   = 5
)

// Subscribers returns how many internal addresses have a block of ports of
// that size: of the network inside, the first that is not the box's own has the
// first block. Where there are several networks, they take turns: the first
// address of each, then the second. A few beyond share blocks with others, so
// that a box with as many hosts as blocks can be measured before they send;
// further ones have none and get nothing out.
func Subscribers(block int) int { return ports / block }

// nth returns the n-th address of a prefix, counting its first as 0.
func nth(prefix netip.Prefix, n int) (netip.Addr, bool) {
	out := address(number(prefix.Masked().Addr()) + uint32(n))
	return out, prefix.Contains(out)
}

// part adds a chain that others jump to.
func (g *generator) part(name, comment string, rules []rule) {
	g.rs.chains = append(g.rs.chains, chain{name: name, comment: comment, rules: rules})
}

// prerouting finds the internal endpoint of what comes in uninvited, and of what
// comes from inside to an external endpoint.
func (g *generator) prerouting() {
	rules := []rule{}
	for _, p := range transports {
		if g.letsIn(p) {
			rules = append(rules, rule{
				comment: "Whoever sends: filtering comes later.",
				terms:   begins(iif(g.WAN), p, dnatBy(internalMap(p))),
			})
		}
		if g.b.Hairpin {
			rules = append(rules, rule{
				comment: "Hairpin: from inside to the endpoint that has the external one.",
				terms:   begins(iif(g.LAN), p, hairpinBy(internalMap(p))),
			})
		}
	}
	g.chain("prerouting", "From an external endpoint to the internal one that has it.",
		nftables.ChainTypeNAT, nftables.ChainHookPrerouting, "prerouting", priorityDestinationNAT, rules)
}

// begins matches what may begin a flow from where it comes: of TCP, a SYN.
func begins(from term, p Protocol, then term) []term {
	if p == TCP {
		return []term{from, l4proto(p), opening(), then}
	}
	return []term{from, l4proto(p), then}
}
