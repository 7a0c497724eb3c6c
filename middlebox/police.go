package middlebox

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the sets that keep each internal address's UDP rate.
const (
	sentSet     = "udp-sent"
	receivedSet = "udp-received"
)

// allowedChain is the name of the chain of what can be reached from inside.
const allowedChain = "allowed"

// rateMemory is how long an address is remembered after its last packet.
const rateMemory = 10 * time.Second

// rates drops UDP beyond the rate that each internal address has, outward and
// inward by themselves.
func (g *generator) rates() (rules []rule) {
	if g.b.UDPRate == 0 {
		return nil
	}
	for _, way := range []struct {
		set  string
		link term
		who  field
	}{{sentSet, iif(g.LAN), source}, {receivedSet, oif(g.LAN), destination}} {
		g.rs.sets = append(g.rs.sets, set{
			name: way.set, timeout: rateMemory, key: []nftables.SetDatatype{nftables.TypeIPAddr}, comment: "Internal address and its rate.",
		})
		rules = append(rules, rule{
			comment: fmt.Sprintf("At most %d UDP packets per second of an address.", g.b.UDPRate),
			terms:   append([]term{way.link, l4proto(UDP), faster(way.set, way.who, g.b.UDPRate)}, g.stop(UDPRateRule, drop())...),
		})
	}
	return rules
}

// UDPBurst is how many packets of a UDPRate may come at once: a tenth of a
// second's worth, and one at least.
func UDPBurst(rate int) int { return max(1, rate/10) }

// faster matches the packets of an address beyond a rate.
func faster(name string, who field, rate int) term {
	burst := UDPBurst(rate)
	return term{fmt.Sprintf("update @%s { %v limit rate over %d/second burst %d packets }", name, who, rate, burst), []expr.Any{
		who.load(reg1),
		&expr.Dynset{SrcRegKey: reg1, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(burst), Over: true},
		}},
	}}
}

// tcpTimers sets connection tracking's timers of TCP. An idle killer is a
// connection tracking that forgets soon and takes nothing up in the middle. A
// connection that has ended is remembered no longer than its mapping: what lives
// beyond that is in the way of the next endpoint that has the external port.
func (g *generator) tcpTimers() {
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
	established, loose := g.b.TCPEstablished, "1"
	if g.b.TCPIdle > 0 {
		established, loose = min(established, g.b.TCPIdle), "0"
	}
	const prefix = "net.netfilter.nf_conntrack_tcp_"
	g.rs.parameters = append(g.rs.parameters, parameter{prefix + "loose", loose}, parameter{prefix + "timeout_established", seconds(established)})
	for _, state := range []string{"syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack"} {
		g.rs.parameters = append(g.rs.parameters, parameter{prefix + "timeout_" + state, seconds(g.b.TCPTransitory)})
	}
	g.rs.parameters = append(g.rs.parameters,
		parameter{prefix + "timeout_time_wait", seconds(min(TCPWaiting, g.b.TCPTransitory))},
		parameter{prefix + "timeout_close", seconds(min(TCPReset, g.b.TCPTransitory))})
}

// idle drops segments of connections that are forgotten.
func (g *generator) idle() []rule {
	if g.b.TCPIdle == 0 {
		return nil
	}
	return []rule{{
		comment: fmt.Sprintf("A TCP connection that was silent for %v is dead.", g.b.TCPIdle),
		terms:   append([]term{l4proto(TCP), invalid()}, g.stop(TCPIdleRule, drop())...),
	}}
}

// allowed drops UDP and TCP from inside to what isn't on the allow list, in
// flows that exist already too. Answers go out, and so does ICMP.
func (g *generator) allowed() (rules []rule) {
	if len(g.b.Allow) == 0 {
		return nil
	}
	for _, s := range g.b.Allow {
		terms := []term{l4proto(s.Protocol)}
		if s.Port != 0 {
			terms = append(terms, portIs(destPort, s.Port))
		}
		rules = append(rules, rule{comment: fmt.Sprintf("allow %v.", s), terms: append(terms, back())})
	}
	for _, p := range transports {
		rules = append(rules, rule{
			comment: fmt.Sprintf("No other %s.", p),
			terms:   append([]term{l4proto(p)}, g.stop(NotAllowedRule, drop())...),
		})
	}
	g.part(allowedChain, "What can be reached from inside.", rules)
	return []rule{{comment: "Only what is allowed.", terms: []term{iif(g.LAN), direction(original), jump(allowedChain)}}}
}
