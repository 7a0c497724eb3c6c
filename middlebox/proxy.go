package middlebox

import (
	"fmt"

	"github.com/google/nftables"
)

// Proxy is a program in the box that passes on what those inside ask of it,
// and that they have to use because nothing else gets through. Empty is none.
type Proxy string

// ProxyHTTPConnect is the HTTP proxy of an enterprise: connections by the
// CONNECT method (RFC 9110 §9.3.6) to TCP port 443, and plain requests to port
// 80.
const ProxyHTTPConnect Proxy = "http-connect"

// NoProxy is the word for none.
const NoProxy Proxy = ""

// ProxyPort is the TCP port of the box's address inside at which a proxy
// listens: the one that Debian's tinyproxy has unless told otherwise.
const ProxyPort = 8888

// Ports outside that a proxy connects to: RFC 9110 §4.2.1 and §4.2.2.
const (
	ProxyHTTPPort  = 80
	ProxyHTTPSPort = 443
)

// NotProxiedRule stops what does not go through the proxy: between inside and
// outside, from inside to another port of the box, and what the proxy itself
// may not send.
const NotProxiedRule = "not-proxied"

// proxied lets nothing of UDP and TCP pass between inside and outside.
func (g *generator) proxied() (rules []rule) {
	if g.b.Proxy == NoProxy {
		return nil
	}
	for _, p := range transports {
		rules = append(rules, rule{
			comment: fmt.Sprintf("proxy: %s. No %s but through it, in flows that exist already neither.", g.b.Proxy, p),
			terms:   append([]term{l4proto(p)}, g.stop(NotProxiedRule, drop())...),
		})
	}
	return rules
}

// proxyInput lets the inside talk to the box's proxy, and to nothing else of
// the box.
func (g *generator) proxyInput() (rules []rule) {
	if g.b.Proxy == NoProxy {
		return nil
	}
	rules = append(rules, rule{comment: "Answers to the proxy.", terms: []term{iif(g.LAN), direction(reply), established(), accept()}})
	rules = append(rules, rule{comment: "The proxy.", terms: []term{iif(g.LAN), l4proto(TCP), portIs(destPort, ProxyPort), accept()}})
	for _, p := range transports {
		rules = append(rules, rule{
			comment: fmt.Sprintf("Nothing else of the box over %s.", p),
			terms:   append([]term{iif(g.LAN), l4proto(p)}, g.stop(NotProxiedRule, drop())...),
		})
	}
	return rules
}

// output is what the proxy itself may send: to the web, or to the proxy of a
// box further out. That box's rules say whether it gets there.
func (g *generator) output() {
	if g.b.Proxy == NoProxy {
		return
	}
	rules := []rule{}
	for _, port := range []uint16{ProxyHTTPPort, ProxyHTTPSPort, ProxyPort} {
		rules = append(rules, rule{comment: "The proxy's own.", terms: []term{oif(g.WAN), l4proto(TCP), portIs(destPort, port), accept()}})
	}
	for _, p := range transports {
		rules = append(rules, rule{
			comment: fmt.Sprintf("Nothing else over %s.", p),
			terms:   append([]term{oif(g.WAN), l4proto(p)}, g.stop(NotProxiedRule, drop())...),
		})
	}
	g.chain("output", "From the box itself.", nftables.ChainTypeFilter, nftables.ChainHookOutput, "output", priorityFilter, rules)
}

// proxy checks what goes with a proxy.
func (v *validator) proxy(b Behaviour) {
	v.word("proxy", string(b.Proxy), ProxyHTTPConnect)
	if b.Proxy == NoProxy {
		return
	}
	const reason = "since nothing else gets through a box with a proxy"
	f := b.filled()
	if f.Filtering != FilterAddressAndPortDependent {
		v.addf("proxy: %s with filtering: %s is not offered; expected address-and-port-dependent, so that the proxy is for those inside", b.Proxy, f.Filtering)
	}
	if f.Unsolicited == ConfirmUnsolicited {
		v.addf("proxy: %s with unsolicited: confirm is not offered; expected drop or reject, so that the proxy is for those inside", b.Proxy)
	}
	for _, s := range b.Allow {
		v.addf("proxy: %s with allow: %v means nothing, %s; expected one of them", b.Proxy, s, reason)
	}
	for _, p := range b.Block {
		v.addf("proxy: %s with block: %s means nothing, %s; expected one of them", b.Proxy, p, reason)
	}
	for _, d := range b.Deny {
		v.addf("proxy: %s with deny: %v is not offered, %s; expected one of them, since the proxy asks nobody whom it may reach", b.Proxy, d, reason)
	}
	if b.UDPRate != 0 {
		v.addf("proxy: %s with udp_rate: %d means nothing, %s; expected no udp_rate", b.Proxy, b.UDPRate, reason)
	}
	if b.TCPIdle != 0 {
		v.addf("proxy: %s with tcp_idle: %v means nothing, %s; expected no tcp_idle", b.Proxy, b.TCPIdle, reason)
	}
	if b.PortMapping {
		v.addf("proxy: %s with port_mapping: true means nothing, %s; expected one of them", b.Proxy, reason)
	}
}
