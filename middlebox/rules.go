package middlebox

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables"
)

// Names of the rules that drop, which are also those of their counters and the
// prefix of their log messages. BlockRule and DenyRule give the others.
const (
	UnsolicitedRule  = "unsolicited"  // from outside, and nothing inside asked for it
	UntranslatedRule = "untranslated" // leaving a NAT with an address that isn't the NAT's
	HairpinRule      = "hairpin"      // from inside to the NAT's own external address, where nobody inside is to be found
	NoPortRule       = "no-port"      // from inside, and no external port is left for it
	NotAllowedRule   = "not-allowed"  // from inside to what isn't in the allow list
	TCPIdleRule      = "tcp-idle"     // of a TCP connection that was silent for too long, or is unknown
	UDPRateRule      = "udp-rate"     // more UDP than an internal address may send or get
)

// BlockRule names the rule that stops a protocol.
func BlockRule(p Protocol) string { return "block-" + string(p) }

// DenyRule names the rules that stop what goes to or comes from a host.
func DenyRule(host string) string { return "deny-" + host }

// Box is a middlebox in its place: a behaviour, interfaces and addresses.
type Box struct {
	Name      string
	Behaviour Behaviour
	WAN, LAN  string                  // names of the interfaces
	WANAddrs  []netip.Addr            // external addresses, one after the other
	LANPrefix netip.Prefix            // of the network inside; no external address is in it
	Routed    []netip.Prefix          // of the networks further inside whose addresses come as they are, those of firewalls
	Inside    int                     // how many addresses of each network inside may be somebody's, its own and the box's not counted; 0 is all
	Denied    map[string][]netip.Addr // addresses of each host that Behaviour.Deny names
	LogGroup  uint16                  // NFLOG group of what is dropped
}

// Priorities of nf_tables hooks, see nft(8). Past those of source NAT a packet
// has its external address.
const (
	priorityEarly          = -300
	priorityDestinationNAT = -100
	priorityFilter         = 0
	priorityRefresh        = 10
	prioritySourceNAT      = 100
	priorityOutside        = 300
)

// Rules generates the rules of a box. It is pure: the same box always gives
// the same rules. It fails if the behaviour isn't valid, an address is
// missing, or a denied host has none.
func Rules(box Box) (*Ruleset, error) {
	if err := box.check(); err != nil {
		return nil, fmt.Errorf("rules of %s: %w", box.Name, err)
	}
	g := &generator{Box: box, b: box.Behaviour.filled()}
	g.rs.parameters = []parameter{
		{"net.netfilter.nf_conntrack_udp_timeout", strconv.Itoa(int(g.b.UDPUnreplied.Seconds()))},
		{"net.netfilter.nf_conntrack_udp_timeout_stream", strconv.Itoa(int(g.b.UDPTimeout.Seconds()))},
	}
	g.tcpTimers()
	g.declareSets()
	g.declareMapped()
	g.early()
	g.prerouting()
	g.input()
	g.output()
	g.forward()
	g.refreshes()
	g.sourceNAT()
	g.outside()
	return &g.rs, nil
}

// check refuses a box that can't be made.
func (box Box) check() error {
	errs := box.Behaviour.Validate()
	if box.WAN == "" || box.LAN == "" || box.WAN == box.LAN {
		errs = append(errs, fmt.Errorf("interfaces %q and %q; expected two", box.WAN, box.LAN))
	}
	if len(box.WANAddrs) == 0 {
		errs = append(errs, errors.New("no external address"))
	}
	if !box.LANPrefix.Addr().Is4() {
		errs = append(errs, fmt.Errorf("inside prefix %v; expected IPv4", box.LANPrefix))
	}
	for i, a := range box.WANAddrs {
		if box.LANPrefix.Contains(a) {
			errs = append(errs, fmt.Errorf("external address %v is inside, in %v", a, box.LANPrefix))
		}
		if !a.Is4() {
			errs = append(errs, fmt.Errorf("external address %v; expected IPv4", a))
		} else if i > 0 && a != box.WANAddrs[i-1].Next() {
			errs = append(errs, fmt.Errorf("external address %v after %v; expected one that follows it", a, box.WANAddrs[i-1]))
		}
	}
	for _, d := range box.Behaviour.Deny {
		if len(box.Denied[d.Host]) == 0 {
			errs = append(errs, fmt.Errorf("deny %v: host %q has no known address", d, d.Host))
		}
		for _, a := range box.Denied[d.Host] {
			if !a.Is4() {
				errs = append(errs, fmt.Errorf("deny %v: address %v; expected IPv4", d, a))
			}
		}
	}
	return errors.Join(errs...)
}

// generator gathers the rules of one box. Its b has the defaults filled in.
type generator struct {
	Box
	b  Behaviour
	rs Ruleset
}

// tabled says whether the box keeps its mappings itself. One that confirms
// unsolicited packets must not: it leaves the choice of a port to connection
// tracking, which then finds the port of a punch taken.
func (g *generator) tabled() bool {
	return g.b.Translates() && g.b.Unsolicited != ConfirmUnsolicited
}

func (g *generator) firstWAN() netip.Addr { return g.WANAddrs[0] }
func (g *generator) lastWAN() netip.Addr  { return g.WANAddrs[len(g.WANAddrs)-1] }

// stop returns the end of a rule that drops: it counts, logs and drops under
// the rule's name.
func (g *generator) stop(name string, end term) []term {
	if !slices.Contains(g.rs.counters, name) {
		g.rs.counters = append(g.rs.counters, name)
	}
	return []term{count(name), record(name, g.LogGroup), end}
}

// chain adds a chain, unless it has no rules.
func (g *generator) chain(name, comment string, kind nftables.ChainType, hook *nftables.ChainHook, hookName string, priority int, rules []rule) {
	if len(rules) == 0 {
		return
	}
	g.rs.chains = append(g.rs.chains, chain{
		name: name, comment: comment, kind: kind, hook: hook, hookName: hookName,
		priority: nftables.ChainPriority(priority), rules: rules,
	})
}

// sourceNAT translates what leaves.
func (g *generator) sourceNAT() {
	if !g.b.Translates() {
		return
	}
	rules := []rule{}
	if g.tabled() {
		g.mappings()
		rules = append(rules, rule{comment: fmt.Sprintf("%s, ports: %s.", g.b.Mapping, g.b.Ports), terms: []term{
			oif(g.WAN), addressNotAmong(source, g.firstWAN(), g.lastWAN()), jump(mappingChain), // the box's own need none
		}})
		if g.b.Hairpin {
			rules = append(rules, rule{comment: "Hairpin: the receiver sees the external source.", terms: []term{oif(g.LAN), hairpinned(), jump(mappingChain)}})
		}
	} else {
		rules = append(rules, rule{comment: fmt.Sprintf("%s, ports: %s.", g.b.Mapping, g.b.Ports), terms: []term{oif(g.WAN), g.byConnectionTracking()}})
	}
	g.chain("postrouting", "The mapping.", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, "postrouting", prioritySourceNAT, rules)
}

// byConnectionTracking leaves the choice of an external endpoint to the kernel.
func (g *generator) byConnectionTracking() term {
	random := g.b.Ports == RandomPorts
	switch {
	case len(g.WANAddrs) > 1:
		return snatTo(g.firstWAN(), g.lastWAN(), g.b.Pool == PairedPool, random)
	case random:
		return masqueradeRandom()
	}
	return masquerade()
}
