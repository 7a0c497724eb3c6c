package certify

import (
	"fmt"
	"strings"
	"time"

	"gauntlet/middlebox"
)

// Cell is one behaviour to be measured, by a name for people.
type Cell struct {
	Name      string
	Behaviour middlebox.Behaviour
	Addresses int // external ones; 0 is 1
	// Refused is why there is no such box; empty if there is.
	Refused []error
}

// mappings are those of RFC 4787 §4.1, and that of a firewall.
var mappings = []middlebox.Mapping{
	middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent, middlebox.NoMapping,
}

// filterings are those of RFC 4787 §5.
var filterings = []middlebox.Filtering{
	middlebox.FilterEndpointIndependent, middlebox.FilterAddressDependent, middlebox.FilterAddressAndPortDependent,
}

// Grid is every mapping with every filtering, of UDP and then of TCP, each with
// ports preserved and ports at random, and once per mapping every other
// property. Each cell is of UDP and TCP. What Validate refuses is among the cells, with the reasons.
func Grid() (cells []Cell) {
	for _, m := range mappings {
		for _, f := range filterings {
			ways := []middlebox.Ports{middlebox.PreservePorts, middlebox.RandomPorts}
			if m == middlebox.NoMapping {
				ways = []middlebox.Ports{""}
			}
			for _, p := range ways {
				cells = append(cells, cell(middlebox.Behaviour{Mapping: m, Filtering: f, Ports: p}, 0))
				cells = append(cells, cell(middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent, TCPFiltering: f, Ports: p}, 0))
			}
		}
	}
	for _, m := range mappings {
		for _, p := range properties {
			if m == middlebox.NoMapping && p.translates {
				continue // means nothing there
			}
			b := middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent}
			p.set(&b)
			cells = append(cells, cell(b, p.addresses))
		}
	}
	return cells
}

// Values of the properties that have numbers: unlike the defaults.
const (
	gridPortBlock      = 64
	gridAddresses      = 4
	gridUDPTimeout     = 150 * time.Second
	gridUDPUnreplied   = 50 * time.Second
	gridTCPEstablished = 3 * time.Hour
	gridTCPTransitory  = 5 * time.Minute
	gridTCPIdle        = 10 * time.Minute
	gridUDPRate        = 200
)

// properties are all others than mapping, filtering, and ports preserved or
// random.
var properties = []struct {
	translates bool // only a box that translates has it
	addresses  int
	set        func(*middlebox.Behaviour)
}{
	{true, 0, func(b *middlebox.Behaviour) { b.Ports = middlebox.SequentialPorts }},
	{true, 0, func(b *middlebox.Behaviour) { b.Ports = middlebox.ParityPorts }},
	{true, 0, func(b *middlebox.Behaviour) { b.Ports, b.PortBlock = middlebox.BlockPorts, gridPortBlock }},
	{true, gridAddresses, func(b *middlebox.Behaviour) { b.Pool = middlebox.PairedPool }},
	{true, gridAddresses, func(b *middlebox.Behaviour) { b.Pool = middlebox.ArbitraryPool }},
	{true, gridAddresses, func(b *middlebox.Behaviour) { b.Ports, b.Pool = middlebox.SequentialPorts, middlebox.ArbitraryPool }},
	{true, gridAddresses, func(b *middlebox.Behaviour) {
		b.Hairpin, b.Filtering, b.Pool = true, middlebox.FilterAddressDependent, middlebox.ArbitraryPool
	}},
	{true, 0, func(b *middlebox.Behaviour) { b.Hairpin = true }},
	{true, 0, func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterAddressDependent }},
	{true, 0, func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterEndpointIndependent }},
	{true, 0, func(b *middlebox.Behaviour) { b.Refresh = middlebox.RefreshOutbound }},
	{true, 0, func(b *middlebox.Behaviour) { b.Refresh = middlebox.RefreshBoth }},
	{true, 0, func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.ConfirmUnsolicited }},
	{false, 0, func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited }},
	{false, 0, func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.DropUnsolicited }},
	{false, 0, func(b *middlebox.Behaviour) {
		b.UDPTimeout, b.TCPEstablished, b.TCPTransitory = gridUDPTimeout, gridTCPEstablished, gridTCPTransitory
	}},
	{false, 0, func(b *middlebox.Behaviour) { b.UDPTimeout, b.UDPUnreplied = gridUDPTimeout, gridUDPUnreplied }},
	{false, 0, func(b *middlebox.Behaviour) { b.TCPIdle = gridTCPIdle }},
	{false, 0, func(b *middlebox.Behaviour) { b.UDPRate = gridUDPRate }},
	{false, 0, func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} }},
	{false, 0, func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.TCP} }},
	{false, 0, func(b *middlebox.Behaviour) { b.Deny = []middlebox.Deny{{Host: loginHost, Protocol: middlebox.TCP}} }},
	{false, 0, func(b *middlebox.Behaviour) {
		b.Deny, b.Filtering = []middlebox.Deny{{Host: loginHost}}, middlebox.FilterEndpointIndependent
	}},
	{false, 0, func(b *middlebox.Behaviour) {
		b.Allow = []middlebox.Service{{Protocol: middlebox.UDP, Port: 53}, {Protocol: middlebox.TCP, Port: 443}}
	}},
	// Properties that have something to do with each other.
	{false, 0, func(b *middlebox.Behaviour) { b.Unsolicited, b.TCPIdle = middlebox.RejectUnsolicited, gridTCPIdle }},
	{false, 0, func(b *middlebox.Behaviour) {
		b.Deny, b.Filtering, b.TCPIdle = []middlebox.Deny{{Host: loginHost}, {Host: loginHost, Protocol: middlebox.TCP}}, middlebox.FilterEndpointIndependent, gridTCPIdle
	}},
	{false, 0, func(b *middlebox.Behaviour) { b.Block, b.TCPIdle = []middlebox.Protocol{middlebox.TCP}, gridTCPIdle }},
	{false, 0, func(b *middlebox.Behaviour) { b.Block, b.UDPRate = []middlebox.Protocol{middlebox.UDP}, gridUDPRate }},
	{true, 0, func(b *middlebox.Behaviour) {
		b.Unsolicited, b.TCPIdle = middlebox.ConfirmUnsolicited, gridTCPIdle
	}},
	{true, 0, func(b *middlebox.Behaviour) {
		b.Unsolicited, b.Deny = middlebox.ConfirmUnsolicited, []middlebox.Deny{{Host: loginHost, Protocol: middlebox.TCP}}
	}},
	{true, 0, func(b *middlebox.Behaviour) {
		b.Unsolicited, b.Block = middlebox.ConfirmUnsolicited, []middlebox.Protocol{middlebox.UDP}
	}},
	{true, 0, func(b *middlebox.Behaviour) {
		b.Unsolicited = middlebox.ConfirmUnsolicited
		b.Allow = []middlebox.Service{{Protocol: middlebox.UDP, Port: 53}, {Protocol: middlebox.TCP, Port: 443}}
	}},
	{true, 0, func(b *middlebox.Behaviour) { b.PortMapping = true }},
	{true, 0, func(b *middlebox.Behaviour) {
		b.PortMapping, b.TCPFiltering = true, middlebox.FilterEndpointIndependent
	}},
	{true, 0, func(b *middlebox.Behaviour) { b.PortMapping, b.TCPFiltering = true, middlebox.FilterAddressDependent }},
	{false, 0, func(b *middlebox.Behaviour) { b.Proxy = middlebox.ProxyHTTPConnect }},
}

func cell(b middlebox.Behaviour, addresses int) Cell {
	return Cell{Name: words(b, addresses), Behaviour: b, Addresses: addresses, Refused: b.Validate()}
}

// words are those of a scenario file, of what a behaviour sets.
func words(b middlebox.Behaviour, addresses int) string {
	var all []string
	add := func(key string, set bool, value any) {
		if set {
			all = append(all, fmt.Sprintf("%s: %v", key, value))
		}
	}
	add("mapping", true, wordOr(string(b.Mapping), "none"))
	add("filtering", b.Filtering != "", b.Filtering)
	add("tcp_filtering", b.TCPFiltering != "", b.TCPFiltering)
	add("ports", b.Ports != "", b.Ports)
	add("port_block", b.PortBlock != 0, b.PortBlock)
	add("pool", b.Pool != "", b.Pool)
	add("addresses", addresses != 0, addresses)
	add("hairpin", b.Hairpin, b.Hairpin)
	add("refresh", b.Refresh != "", b.Refresh)
	add("unsolicited", b.Unsolicited != "", b.Unsolicited)
	add("udp_timeout", b.UDPTimeout != 0, b.UDPTimeout)
	add("udp_unreplied_timeout", b.UDPUnreplied != 0, b.UDPUnreplied)
	add("tcp_established", b.TCPEstablished != 0, b.TCPEstablished)
	add("tcp_transitory", b.TCPTransitory != 0, b.TCPTransitory)
	add("tcp_idle", b.TCPIdle != 0, b.TCPIdle)
	add("udp_rate", b.UDPRate != 0, b.UDPRate)
	add("block", len(b.Block) > 0, list(b.Block))
	add("deny", len(b.Deny) > 0, list(b.Deny))
	add("allow", len(b.Allow) > 0, list(b.Allow))
	add("proxy", b.Proxy != middlebox.NoProxy, b.Proxy)
	add("port_mapping", b.PortMapping, b.PortMapping)
	return strings.Join(all, ", ")
}

func wordOr(word, none string) string {
	if word == "" {
		return none
	}
	return word
}

// list writes a YAML list, whose elements have colons.
func list[T any](elements []T) string {
	texts := make([]string, len(elements))
	for i, e := range elements {
		texts[i] = fmt.Sprintf("%q", fmt.Sprint(e))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}
