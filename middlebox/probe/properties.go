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

	Proxy string `json:"proxy,omitempty"` // what the box's proxy does, as Proxy measures it
	// PortMapping and TCPPortMapping are the protocols by which a host inside can
	// have everybody let in.
	PortMapping    []string `json:"port_mapping,omitempty"`
	TCPPortMapping []string `json:"tcp_port_mapping,omitempty"`

	// What follows is of the full measurement only.

	HairpinSource  string `json:"hairpin_source,omitempty"` // external, another-external (RFC 4787 lets the port depend on the destination), internal, or other
	PortCollision  string `json:"port_collision,omitempty"` // what two hosts inside get that want the same port: distinct, or shared
	PerEndpoint    *bool  `json:"filtering_per_endpoint,omitempty"`
	TCPMapping     string `json:"tcp_mapping,omitempty"`
	TCPPorts       string `json:"tcp_ports,omitempty"`
	TCPUnsolicited string `json:"tcp_unsolicited,omitempty"`
	TCPPerEndpoint *bool  `json:"tcp_filtering_per_endpoint,omitempty"`
	Pool           string `json:"pool,omitempty"`

	// ICMPErrors are those that get through with what they quote translated, about
	// live mappings (RFC 5508, REQ-3 to REQ-5): "udp inward" are about what the
	// inside has sent by UDP, "udp outward" about what it was sent. The other two
	// say what becomes of errors about nothing: passes, drop, or vanishes, which
	// is that the box takes them for its own.
	ICMPErrors           []string `json:"icmp_errors,omitempty"`
	ICMPUnrelated        string   `json:"icmp_unrelated,omitempty"`
	ICMPUnrelatedOutward string   `json:"icmp_unrelated_outward,omitempty"`

	// What the sender of a packet hears that is stopped: silence, reset,
	// port-unreachable or another ICMP error. Of packets that nobody asked for, and
	// of those from inside to what is out of reach.
	Refusal           string `json:"refusal,omitempty"`
	TCPRefusal        string `json:"tcp_refusal,omitempty"`
	StoppedRefusal    string `json:"stopped_refusal,omitempty"`
	TCPStoppedRefusal string `json:"tcp_stopped_refusal,omitempty"`

	// TCPStray and TCPStrayOutward are what becomes of a segment in the middle of
	// no connection: passes, drop, or "reject with" or "confirm with" an answer.
	TCPStray        string `json:"tcp_stray,omitempty"`
	TCPStrayOutward string `json:"tcp_stray_outward,omitempty"`

	// DenyInbound are the hosts that can send nothing to an endpoint inside that
	// has sent to them, or tried to.
	DenyInbound    []string `json:"deny_inbound,omitempty"`
	TCPDenyInbound []string `json:"tcp_deny_inbound,omitempty"`

	// PortBlock is how many external ports one internal address gets, which
	// follow each other; of a box that gives ports by block.
	PortBlock int `json:"port_block,omitempty"`

	// UDPTimeout, UDPUnreplied, that of a flow that is no stream where it is
	// another, TCPEstablished and TCPTransitory, that of a connection whose SYN
	// has no answer, are in seconds. They are what the kernel's
	// timer of a flow says right after a packet, since nobody waits for five
	// minutes; that such timers end mappings and connections is measured by
	// packets, with short ones: the timings.
	UDPTimeout     int     `json:"udp_timeout_seconds,omitempty"`
	UDPUnreplied   int     `json:"udp_unreplied_timeout_seconds,omitempty"`
	TCPEstablished int     `json:"tcp_established_seconds,omitempty"`
	TCPTransitory  int     `json:"tcp_transitory_seconds,omitempty"`
	Refresh        string  `json:"refresh,omitempty"`
	Timing         *Timing `json:"udp_timing,omitempty"`

	// How long a TCP connection gets answers (RFC 5382, REQ-5), by how far it has
	// come.
	TCPEstablishedTiming *Timing `json:"tcp_established_timing,omitempty"`
	TCPHalfOpenTiming    *Timing `json:"tcp_half_open_timing,omitempty"`
	TCPHalfClosedTiming  *Timing `json:"tcp_half_closed_timing,omitempty"`

	TCPIdle string `json:"tcp_idle,omitempty"` // what becomes of a silent TCP connection, with a short timer: cut or kept; cut-busy if one that isn't silent is cut
	// UDPRate and UDPRateInward are packets per second that one host inside gets
	// out and gets, of twice as many.
	UDPRate       int `json:"udp_rate,omitempty"`
	UDPRateInward int `json:"udp_rate_inward,omitempty"`
}

// Timing is how long a UDP mapping or a TCP connection was usable, with timers
// shortened so that it can be waited for.
type Timing struct {
	Set   float64 `json:"set_seconds"`   // what the box was told
	Alive float64 `json:"alive_seconds"` // the oldest one that was still usable
	Dead  float64 `json:"dead_seconds"`  // the youngest that was not; 0 if all were usable
}

// Words for what is measured that the scenario file has no word for.
const (
	mappingNone     = "none"
	external        = "external"
	anotherExternal = "another-external" // than the one that others see
	internal        = "internal"
	other           = "other"
	distinct        = "distinct"
	shared          = "shared"
	rewritten       = "rewritten"
	cut             = "cut"
	kept            = "kept"
	cutBusy         = "cut-busy"
	vanishes        = "vanishes" // without a trace: no log, no answer
	through         = "passes"
	silence         = "silence"
	reset           = "reset" // of TCP

	portUnreachable = "port-unreachable" // of ICMP
)

func yes(b bool) *bool { return &b }
