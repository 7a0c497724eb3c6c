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

func allocateChain(p Protocol, address int) string { return fmt.Sprintf("allocate-%s-%d", p, address) }
func tryChain(p Protocol, address int) string      { return fmt.Sprintf("try-%s-%d", p, address) }

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
		for i := range g.WANAddrs {
			terms := []term{l4proto(p)}
			if len(g.WANAddrs) > 1 {
				terms = append(terms, g.choose(i))
			}
			rules = append(rules, rule{
				comment: fmt.Sprintf("A new one with %v, pool: %s.", g.WANAddrs[i], g.b.Pool),
				terms:   append(terms, goTo(allocateChain(p, i))),
			})
		}
	}
	g.part(mappingChain, "The mapping of the first packet of a flow.", append(rules, rule{
		comment: "What has no ports.", terms: []term{snatTo(g.firstWAN(), g.lastWAN(), true, false)},
	}))
	for _, p := range transports {
		for i, a := range g.WANAddrs {
			g.allocate(p, i, a)
		}
	}
}

// choose matches when the packet's mapping is to have the i-th address, and
// none before it has matched.
func (g *generator) choose(i int) term {
	if g.b.Pool == PairedPool {
		return hashIs(source, uint32(len(g.WANAddrs)), uint32(i))
	}
	return oneIn(uint32(len(g.WANAddrs) - i))
}

// allocate adds the chains that give a port of one address.
func (g *generator) allocate(p Protocol, i int, a netip.Addr) {
	rules, tries := []rule{}, []rule{}
	free := func(port portChoice) term { return g.snatToFree(p, a, port) }
	random := portNumber{from: firstPort, count: ports}
	switch g.b.Ports {
	case PreservePorts:
		rules = append(rules, rule{
			comment: "ports: preserve. The internal one, if no other endpoint has it.",
			terms:   []term{free(samePort{})},
		})
		tries = []rule{{comment: "Else any that is free.", terms: []term{free(random)}}}
	case SequentialPorts:
		tries = []rule{{comment: "ports: sequential. The next.", terms: []term{free(portNumber{from: firstPort, count: ports, next: true})}}}
	case ParityPorts:
		tries = []rule{
			{comment: "ports: parity. Even to even.", terms: []term{parity(sourcePort, 0), free(portNumber{from: firstPort, count: ports, parity: even})}},
			{comment: "Odd to odd.", terms: []term{parity(sourcePort, 1), free(portNumber{from: firstPort, count: ports, parity: odd})}},
		}
	case BlockPorts:
		for host := range Subscribers(g.b.PortBlock) {
			inside, ok := nth(g.LANPrefix, host+1)
			if !ok {
				break
			}
			block := portNumber{from: uint32(firstPort + host*g.b.PortBlock), count: uint32(g.b.PortBlock)}
			tries = append(tries, rule{
				comment: fmt.Sprintf("ports: block. The block of %v.", inside),
				terms:   []term{addressIs(source, inside), free(block)},
			})
		}
	default:
		tries = []rule{{comment: "ports: random. Any that is free.", terms: []term{free(random)}}}
	}
	for range portTries {
		rules = append(rules, rule{comment: "Try.", terms: []term{jump(tryChain(p, i))}})
	}
	rules = append(rules, rule{comment: "No port is left.", terms: g.stop(NoPortRule, drop())})
	g.part(tryChain(p, i), fmt.Sprintf("One try for a %s port of %v.", p, a), tries)
	g.part(allocateChain(p, i), fmt.Sprintf("A %s port of %v.", p, a), rules)
}

// Subscribers returns how many internal addresses have a block of ports of
// that size at one external address. The n-th address of the network inside
// has the n-th block; those beyond have none and get nothing out.
func Subscribers(block int) int { return ports / block }

// nth returns the n-th address of a prefix, counting its first as 0.
func nth(prefix netip.Prefix, n int) (netip.Addr, bool) {
	a := prefix.Masked().Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += uint32(n)
	out := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
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
