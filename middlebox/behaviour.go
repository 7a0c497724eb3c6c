// Package middlebox says in the words of RFC 4787 and RFC 5382 what a NAT or
// firewall does, turns that into nftables rules, and loads them into a
// namespace.
//
// Rules is pure: the Ruleset it returns can be printed as nft(8) reads it,
// compared and stored. Load hands one to the kernel in a single transaction.
package middlebox

import "time"

// Mapping is RFC 4787 §4.1: for which destinations an internal endpoint keeps
// its external one.
type Mapping string

// The mappings. NoMapping is a firewall: addresses pass as they are.
const (
	NoMapping                  Mapping = ""
	MapEndpointIndependent     Mapping = "endpoint-independent"
	MapAddressDependent        Mapping = "address-dependent"
	MapAddressAndPortDependent Mapping = "address-and-port-dependent"
)

// Filtering is RFC 4787 §5: from which external endpoints packets are let in
// to an internal one. An empty Filtering is FilterEndpointIndependent.
type Filtering string

// The filterings. On a box without mapping, FilterEndpointIndependent lets
// everything in.
const (
	FilterEndpointIndependent     Filtering = "endpoint-independent"
	FilterAddressDependent        Filtering = "address-dependent"
	FilterAddressAndPortDependent Filtering = "address-and-port-dependent"
)

// Ports is RFC 4787 §4.2: how an external port is chosen. Empty is what the
// mapping does by itself: PreservePorts if endpoint-independent, else
// RandomPorts. No two internal endpoints have one external port, whichever
// they talk to (RFC 4787, REQ-3); where all ports to choose from are taken, the
// packet is dropped.
type Ports string

// The ways to choose a port.
const (
	PreservePorts   Ports = "preserve"   // the internal one, if it is free
	RandomPorts     Ports = "random"     // any
	SequentialPorts Ports = "sequential" // the last one that the box gave, and 1
	ParityPorts     Ports = "parity"     // any as odd or even as the internal one
	BlockPorts      Ports = "block"      // any of a block that belongs to the internal address (deterministic, RFC 7422)
)

// Unsolicited is what happens to a packet from outside that nothing inside
// asked for. RFC 5382 REQ-4 wants silence, at least for 6 s. Empty is
// DropUnsolicited.
type Unsolicited string

// The ways to treat an unsolicited packet.
const (
	DropUnsolicited   Unsolicited = "drop"   // silence
	RejectUnsolicited Unsolicited = "reject" // a TCP reset or ICMP port unreachable
	// ConfirmUnsolicited is a router whose own address is open: it answers for
	// itself, and its connection tracking remembers the packet. That takes the
	// external port which the punch of a host inside needs, so that punching
	// fails whenever the peer's packet comes first.
	ConfirmUnsolicited Unsolicited = "confirm"
)

// Refresh is RFC 4787 §4.3, REQ-6: which packets keep a mapping alive. Empty
// is RefreshBoth.
type Refresh string

// The ways to refresh a mapping.
const (
	RefreshOutbound Refresh = "outbound"
	RefreshBoth     Refresh = "both"
)

// Pool is RFC 4787 §4.1, REQ-2: whether an internal address keeps one external
// address where there are several. Empty is PairedPool.
type Pool string

// The poolings.
const (
	PairedPool    Pool = "paired"
	ArbitraryPool Pool = "arbitrary"
)

// Protocol is a transport protocol.
type Protocol string

// The protocols that can be blocked or denied.
const (
	UDP Protocol = "udp"
	TCP Protocol = "tcp"
)

// Behaviour is all that a box does to packets. The zero value lets everything
// through unchanged.
type Behaviour struct {
	Mapping        Mapping
	Filtering      Filtering // of UDP, and of what is neither UDP nor TCP
	TCPFiltering   Filtering // of TCP (RFC 5382 §4.3, REQ-3); empty is what FilteringOf says
	Ports          Ports
	PortBlock      int           // ports of an internal address with BlockPorts; 0 is DefaultPortBlock
	Hairpin        bool          // hosts inside reach each other by external addresses (RFC 4787 §6, REQ-9)
	UDPTimeout     time.Duration // whole seconds; 0 is DefaultUDPTimeout
	UDPUnreplied   time.Duration // whole seconds that a UDP flow lives until it is a stream (UDPStream); 0 is UDPTimeout
	TCPEstablished time.Duration // whole seconds; 0 is DefaultTCPEstablished
	TCPTransitory  time.Duration // whole seconds; 0 is DefaultTCPTransitory
	TCPIdle        time.Duration // whole seconds after which a silent TCP connection is cut off, without a word; 0 is never
	UDPRate        int           // UDP packets per second of each internal address, each way; 0 is no limit
	Unsolicited    Unsolicited
	Refresh        Refresh
	Pool           Pool
	Block          []Protocol // stopped both ways, also in flows that exist already
	Deny           []Deny     // external hosts nobody inside can talk to
	Allow          []Service  // if any, all of UDP and TCP that can be reached from inside
	Proxy          Proxy      // a program in the box, and nothing of UDP and TCP gets through otherwise
	PortMapping    bool       // hosts inside may ask for mappings that let everybody in: UPnP IGD, NAT-PMP (RFC 6886), PCP (RFC 6887)
}

// Translates says whether the box has external addresses that stand for the
// internal ones.
func (b Behaviour) Translates() bool { return b.Mapping != NoMapping }

// FilteringOf returns how a protocol is filtered, the defaults filled in. TCP is
// filtered address-and-port-dependent unless TCPFiltering says otherwise, or the
// box lets in everything.
func (b Behaviour) FilteringOf(p Protocol) Filtering {
	f := b.Filtering
	if f == "" {
		f = FilterEndpointIndependent
	}
	switch {
	case p != TCP:
		return f
	case b.TCPFiltering != "":
		return b.TCPFiltering
	case !b.Translates() && f == FilterEndpointIndependent:
		return f
	}
	return FilterAddressAndPortDependent
}

// ChangedTo returns what a running box of behaviour b does once it is told to
// become next. If b translates and next has no mapping of its own, as the
// firewall presets, the box keeps its translation, that is Mapping, Ports,
// PortBlock, Pool, Hairpin and, unless next has a proxy, PortMapping: the hosts
// behind it keep their private addresses, and without translation they would be
// cut off for a reason the change isn't about. Everything else is next's. The result may be one that Validate
// refuses, as a symmetric NAT changed to "open".
//
// A box that doesn't translate may become one that does: it then translates
// the addresses its hosts have.
func (b Behaviour) ChangedTo(next Behaviour) Behaviour {
	if b.Translates() && !next.Translates() {
		next.Mapping, next.Ports, next.Pool, next.Hairpin = b.Mapping, b.Ports, b.Pool, b.Hairpin
		next.PortBlock = b.PortBlock
		next.PortMapping = b.PortMapping && next.Proxy == NoProxy
	}
	return next
}

// filled returns the behaviour with the defaults in place of empty fields.
func (b Behaviour) filled() Behaviour {
	b.Filtering, b.TCPFiltering = b.FilteringOf(UDP), b.FilteringOf(TCP)
	if b.Ports == "" && b.Translates() {
		b.Ports = RandomPorts
		if b.Mapping == MapEndpointIndependent {
			b.Ports = PreservePorts
		}
	}
	if b.UDPTimeout == 0 {
		b.UDPTimeout = DefaultUDPTimeout
	}
	if b.UDPUnreplied == 0 {
		b.UDPUnreplied = b.UDPTimeout
	}
	if b.TCPEstablished == 0 {
		b.TCPEstablished = DefaultTCPEstablished
	}
	if b.TCPTransitory == 0 {
		b.TCPTransitory = DefaultTCPTransitory
	}
	if b.PortBlock == 0 && b.Ports == BlockPorts {
		b.PortBlock = DefaultPortBlock
	}
	if b.Unsolicited == "" {
		b.Unsolicited = DropUnsolicited
	}
	if b.Refresh == "" {
		b.Refresh = RefreshBoth
	}
	if b.Pool == "" {
		b.Pool = PairedPool
	}
	return b
}
