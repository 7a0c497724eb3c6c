package probe

// Properties are what was measured of a box, or is declared of it, in the
// words of the scenario file. What is empty was not measured, or means nothing
// for such a box.
type Properties struct {
	Mapping    string `json:"mapping,omitempty"`
	Filtering  string `json:"filtering,omitempty"`
	Ports      string `json:"ports,omitempty"`
	Hairpin    *bool  `json:"hairpin,omitempty"`
	PunchFirst *bool  `json:"punch_first,omitempty"` // the port is kept and the punch gets in though the peer's packet came first

	// Inbound is "rewritten" if a packet from outside got in with another source
	// than its sender's, else empty.
	Inbound string `json:"inbound_source,omitempty"`

	Unsolicited  string   `json:"unsolicited,omitempty"`   // what becomes of a packet nobody asked for; "" if it gets in
	TCPFiltering string   `json:"tcp_filtering,omitempty"` // who can connect to an endpoint inside that has connected outward
	Block        []string `json:"block,omitempty"`
	Deny         []string `json:"deny,omitempty"`
	Allow        []string `json:"allow,omitempty"`

	// BlockInbound are the protocols that pass outward on no port or on some
	// alone, and of which nothing gets in uninvited either.
	BlockInbound []string `json:"block_inbound,omitempty"`

	Proxy       string   `json:"proxy,omitempty"`        // what the box's proxy does, as Proxy measures it
	PortMapping []string `json:"port_mapping,omitempty"` // the protocols by which a host inside can have everybody let in

	// What follows is of the full measurement only.

	HairpinSource  string `json:"hairpin_source,omitempty"` // external, internal, or other
	PortCollision  string `json:"port_collision,omitempty"` // what two hosts inside get that want the same port: distinct, or shared
	PerEndpoint    *bool  `json:"filtering_per_endpoint,omitempty"`
	ICMPErrors     *bool  `json:"icmp_errors,omitempty"` // an ICMP error for a live mapping reaches the endpoint (RFC 5508, REQ-3)
	TCPMapping     string `json:"tcp_mapping,omitempty"`
	TCPPorts       string `json:"tcp_ports,omitempty"`
	TCPUnsolicited string `json:"tcp_unsolicited,omitempty"`
	Pool           string `json:"pool,omitempty"`

	// DenyInbound are the hosts that can send nothing to an endpoint inside that
	// has sent to them, or tried to.
	DenyInbound []string `json:"deny_inbound,omitempty"`

	// PortBlock is how many external ports one internal address gets, which
	// follow each other; of a box that gives ports by block.
	PortBlock int `json:"port_block,omitempty"`

	// UDPTimeout, TCPEstablished and TCPTransitory, that of a connection whose
	// SYN has no answer, are in seconds. They are what the kernel's
	// timer of a flow says right after a packet, since nobody waits for five
	// minutes; that such a timer ends a UDP mapping is measured by packets,
	// with a short one: Timing.
	UDPTimeout     int     `json:"udp_timeout_seconds,omitempty"`
	TCPEstablished int     `json:"tcp_established_seconds,omitempty"`
	TCPTransitory  int     `json:"tcp_transitory_seconds,omitempty"`
	Refresh        string  `json:"refresh,omitempty"`
	Timing         *Timing `json:"udp_timing,omitempty"`

	TCPIdle string `json:"tcp_idle,omitempty"` // what becomes of a silent TCP connection: cut or kept, with a short timer
	// UDPRate and UDPRateInward are packets per second that one host inside gets
	// out and gets, of twice as many.
	UDPRate       int `json:"udp_rate,omitempty"`
	UDPRateInward int `json:"udp_rate_inward,omitempty"`
}

// Timing is how long a UDP mapping was usable, with timers shortened so that
// it can be waited for.
type Timing struct {
	Set   float64 `json:"set_seconds"`   // what the box was told
	Alive float64 `json:"alive_seconds"` // the oldest mapping that was still usable
	Dead  float64 `json:"dead_seconds"`  // the youngest that was not; 0 if all were usable
}

// Words for what is measured that the scenario file has no word for.
const (
	mappingNone = "none"
	external    = "external"
	internal    = "internal"
	other       = "other"
	distinct    = "distinct"
	shared      = "shared"
	rewritten   = "rewritten"
	cut         = "cut"
	kept        = "kept"
	vanishes    = "vanishes" // without a trace: no log, no answer
)

func yes(b bool) *bool { return &b }
