package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gauntlet/middlebox"
)

// Compare returns, in words, where a box was measured to differ from what it
// declares; none if it is what it says.
func Compare(declared middlebox.Behaviour, measured Properties) []string {
	return Differences(Declared(declared), measured)
}

// Differences is Compare for what a chain of boxes declares together.
//
// What was not measured is not compared, except that everything of the quick
// measurement must have been measured as far as UDP and TCP pass.
func Differences(declared, measured Properties) []string {
	c := &comparison{}
	c.list("block", declared.Block, measured.Block)
	c.list("deny", deniable(declared), measured.Deny)
	c.list("allow", declared.Allow, measured.Allow)
	if len(c.found) == 0 { // else it is about other protocols
		c.list("block_inbound", declared.BlockInbound, measured.BlockInbound)
	}

	c.must = false
	c.word("proxy", declared.Proxy, measured.Proxy)
	if measured.PortMapping != nil {
		c.list("port_mapping", declared.PortMapping, measured.PortMapping)
	}
	if measured.TCPPortMapping != nil {
		c.list("tcp_port_mapping", declared.TCPPortMapping, measured.TCPPortMapping)
	}
	c.must = declared.open(middlebox.UDP)
	c.word("mapping", declared.Mapping, measured.Mapping)
	c.word("filtering", declared.Filtering, measured.Filtering)
	c.equal("inbound_source", declared.Inbound, measured.Inbound)
	c.truth("punch_first", declared.PunchFirst, measured.PunchFirst)
	c.word("ports", declared.Ports, measured.Ports)
	c.truth("hairpin", declared.Hairpin, measured.Hairpin)
	if measured.Mapping != "" { // a word for packets that get in there is none
		c.equal("unsolicited", declared.Unsolicited, measured.Unsolicited)
	}
	c.must = declared.open(middlebox.TCP)
	c.word("tcp_filtering", declared.TCPFiltering, measured.TCPFiltering)

	c.must = false
	c.word("hairpin_source", declared.HairpinSource, measured.HairpinSource)
	c.word("port_collision", declared.PortCollision, measured.PortCollision)
	c.truth("filtering_per_endpoint", declared.PerEndpoint, measured.PerEndpoint)
	c.truth("tcp_filtering_per_endpoint", declared.TCPPerEndpoint, measured.TCPPerEndpoint)
	if !quick(measured) {
		c.list("icmp_errors", declared.ICMPErrors, measured.ICMPErrors)
	}
	c.word("icmp_unrelated", declared.ICMPUnrelated, measured.ICMPUnrelated)
	c.word("icmp_unrelated_outward", declared.ICMPUnrelatedOutward, measured.ICMPUnrelatedOutward)
	c.word("refusal", declared.Refusal, measured.Refusal)
	c.word("tcp_refusal", declared.TCPRefusal, measured.TCPRefusal)
	c.word("stopped_refusal", declared.StoppedRefusal, measured.StoppedRefusal)
	c.word("tcp_stopped_refusal", declared.TCPStoppedRefusal, measured.TCPStoppedRefusal)
	c.word("tcp_stray", declared.TCPStray, measured.TCPStray)
	c.word("tcp_stray_outward", declared.TCPStrayOutward, measured.TCPStrayOutward)
	c.word("tcp_mapping", declared.TCPMapping, measured.TCPMapping)
	c.word("tcp_ports", declared.TCPPorts, measured.TCPPorts)
	c.word("tcp_unsolicited", declared.TCPUnsolicited, measured.TCPUnsolicited)
	c.word("pool", declared.Pool, measured.Pool)
	if measured.DenyInbound != nil {
		c.list("deny_inbound", declared.DenyInbound, measured.DenyInbound)
	}
	if measured.TCPDenyInbound != nil {
		c.list("tcp_deny_inbound", declared.TCPDenyInbound, measured.TCPDenyInbound)
	}
	if measured.PortBlock != 0 {
		c.equal("port_block", strconv.Itoa(declared.PortBlock), strconv.Itoa(measured.PortBlock))
	}
	if measured.UDPTimeout != 0 && declared.UDPTimeout != 0 {
		c.equal("udp_timeout_seconds", strconv.Itoa(declared.UDPTimeout), strconv.Itoa(measured.UDPTimeout))
	}
	if measured.UDPUnreplied != 0 && declared.UDPUnreplied != 0 {
		c.equal("udp_unreplied_timeout_seconds", strconv.Itoa(declared.UDPUnreplied), strconv.Itoa(measured.UDPUnreplied))
	}
	if measured.TCPEstablished != 0 && declared.TCPEstablished != 0 {
		c.equal("tcp_established_seconds", strconv.Itoa(declared.TCPEstablished), strconv.Itoa(measured.TCPEstablished))
	}
	if measured.TCPTransitory != 0 && declared.TCPTransitory != 0 {
		c.equal("tcp_transitory_seconds", strconv.Itoa(declared.TCPTransitory), strconv.Itoa(measured.TCPTransitory))
	}
	c.word("tcp_idle", declared.TCPIdle, measured.TCPIdle)
	c.rate("udp_rate", declared.UDPRate, measured.UDPRate, quick(measured))
	c.rate("udp_rate_inward", declared.UDPRateInward, measured.UDPRateInward, quick(measured))
	c.word("refresh", declared.Refresh, measured.Refresh)
	c.timing("udp_timeout", declared.UDPTimeout, measured.Timing)
	c.timing("tcp_established", declared.TCPEstablished, measured.TCPEstablishedTiming)
	c.timing("tcp_transitory, half-open", declared.TCPTransitory, measured.TCPHalfOpenTiming)
	c.timing("tcp_transitory, half-closed", declared.TCPTransitory, measured.TCPHalfClosedTiming)
	return c.found
}

// open says whether a protocol passes on any port.
func (d Properties) open(protocol middlebox.Protocol) bool {
	return !slices.Contains(d.Block, string(protocol)) && !slices.ContainsFunc(d.Allow, func(service string) bool {
		return strings.HasPrefix(service, string(protocol)+":")
	})
}

// rate allows a quarter more or less, which is what bursts and a busy machine
// make of it.
func (c *comparison) rate(property string, declared, measured int, quick bool) {
	if low, high := declared*3/4, declared*5/4; measured < low && !quick || measured > high {
		c.equal(property, strconv.Itoa(declared), strconv.Itoa(measured))
	}
}

// quick says whether something comes of the quick part alone. The full one finds
// what becomes of errors about nothing wherever something passes.
func quick(measured Properties) bool { return measured.ICMPUnrelated == "" }

type comparison struct {
	must  bool // a property that is declared must have been measured
	found []string
}

func (c *comparison) equal(property, declared, measured string) {
	if declared != measured {
		c.found = append(c.found, fmt.Sprintf("%s: declared %s, measured %s", property, said(declared), said(measured)))
	}
}

func said(word string) string {
	if word == "" {
		return "nothing"
	}
	return word
}

func (c *comparison) word(property, declared, measured string) {
	if declared == "" || measured == "" && !c.must {
		return // it has no word for this box, or was not measured
	}
	c.equal(property, declared, measured)
}

func (c *comparison) truth(property string, declared, measured *bool) {
	text := func(b *bool) string {
		if b == nil {
			return ""
		}
		return strconv.FormatBool(*b)
	}
	c.word(property, text(declared), text(measured))
}

func (c *comparison) list(property string, declared, measured []string) {
	c.equal(property, strings.Join(declared, ", "), strings.Join(measured, ", "))
}

// deniable is what can be seen of a deny list where a protocol is stopped
// altogether: the other one.
func deniable(d Properties) []string {
	var seen []string
	for _, text := range d.Deny {
		rule, err := middlebox.ParseDeny(text)
		if err != nil {
			continue // it is no behaviour's
		}
		var left []middlebox.Protocol
		for _, p := range []middlebox.Protocol{middlebox.UDP, middlebox.TCP} {
			if (rule.Protocol == "" || rule.Protocol == p) && d.open(p) {
				left = append(left, p)
			}
		}
		if rule.Protocol == "" && len(left) < 2 {
			for _, p := range left {
				seen = append(seen, middlebox.Deny{Host: rule.Host, Protocol: p, Port: rule.Port}.String())
			}
		} else if len(left) > 0 {
			seen = append(seen, text)
		}
	}
	slices.Sort(seen)
	return seen
}

// timing checks that mappings or connections end when they were told to, if a
// timer is declared for them at all. A packet is allowed to be late by slack.
func (c *comparison) timing(property string, seconds int, t *Timing) {
	if t == nil {
		return
	}
	const slack = 0.25 // seconds
	if seconds == 0 {
		if t.Dead != 0 {
			c.found = append(c.found, fmt.Sprintf("%s: declared nothing, measured an end after %.2f s", property, t.Dead))
		}
		return
	}
	if t.Dead == 0 || t.Alive > t.Set+slack || t.Dead < t.Set-slack {
		dead := fmt.Sprintf("dead after %.2f s", t.Dead)
		if t.Dead == 0 {
			dead = "never dead"
		}
		c.found = append(c.found, fmt.Sprintf("%s: set to %.0f s, measured alive after %.2f s and %s", property, t.Set, t.Alive, dead))
	}
}
