// Package scenario reads scenario files: a topology, the nodes in it, and the
// functions that are driven, each with the path that is expected. Reading is
// strict; everything wrong in a file is reported at once, each mistake with
// its line and column.
package scenario

import (
	"encoding/json"
	"time"

	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
)

// Scenario is one file.
type Scenario struct {
	// ID is the file's base name without its extension.
	ID string `yaml:"-" json:"-"`
	// Dir is the file's folder, an absolute path, "" for an embedded one; a node's
	// executable is found from there, and has it as its working directory.
	Dir string `yaml:"-" json:"-"`
	// Source is the file's content.
	Source []byte `yaml:"-" json:"-"`

	// What the scenario shows, in a few words.
	Name string `yaml:"name" json:"name,omitempty"`
	// The claims that the whole file reproduces; a step may name its own.
	Claims []string `yaml:"claims" json:"claims,omitempty"`
	// The numbers of the overlay's protocols: nec2006 (default) or baset2004.
	Profile string `yaml:"profile" json:"profile,omitempty" jsonschema:"enum=nec2006,enum=baset2004"`
	// Middleboxes and hosts.
	Topology Topology `yaml:"topology" json:"topology"`
	// Which node runs on which host. A node runs on the host of its name.
	Nodes Named[Node] `yaml:"nodes" json:"nodes,omitempty"`
	// What is driven, in this order.
	Steps []Step `yaml:"steps" json:"steps,omitempty"`
}

// Topology is the network of a scenario. A file that holds nothing else is a
// topology for exec and up.
type Topology struct {
	// Routers between a LAN and what lies outside, by name.
	Middleboxes Named[Middlebox] `yaml:"middleboxes" json:"middleboxes,omitempty"`
	// Hosts by name; a name such as sn[1-12] stands for twelve of them.
	Hosts Named[Host] `yaml:"hosts" json:"hosts,omitempty"`
}

// Middlebox is a preset, or a behaviour in the words of RFC 4787, or a preset
// with some of its behaviour changed.
type Middlebox struct {
	// A preset by name; see gauntlet list.
	Preset string `yaml:"preset" json:"preset,omitempty"`
	// The box that this one is behind; the internet if left out.
	Behind string `yaml:"behind" json:"behind,omitempty"`

	Overrides `yaml:",inline"`

	// What the uplink does to packets.
	Link *Link `yaml:"link" json:"link,omitempty"`
}

// Overrides are the parts of a behaviour that a file may set by themselves.
type Overrides struct {
	// RFC 4787 section 4.1; none for a box that does not translate.
	Mapping *middlebox.Mapping `yaml:"mapping" json:"mapping,omitempty" jsonschema:"enum=none,enum=endpoint-independent,enum=address-dependent,enum=address-and-port-dependent"`
	// RFC 4787 section 5; none for a box that lets everything in.
	Filtering *middlebox.Filtering `yaml:"filtering" json:"filtering,omitempty" jsonschema:"enum=none,enum=endpoint-independent,enum=address-dependent,enum=address-and-port-dependent"`
	// RFC 5382 section 4.3: the same for TCP. Left out, what is not asked for stays
	// out, unless the box lets everything in.
	TCPFiltering *middlebox.Filtering `yaml:"tcp_filtering" json:"tcp_filtering,omitempty" jsonschema:"enum=endpoint-independent,enum=address-dependent,enum=address-and-port-dependent"`
	// How external ports are chosen.
	Ports *middlebox.Ports `yaml:"ports" json:"ports,omitempty" jsonschema:"enum=preserve,enum=random,enum=sequential,enum=parity,enum=block"`
	// How many external ports an internal address has, with ports: block.
	PortBlock *int `yaml:"port_block" json:"port_block,omitempty" jsonschema:"minimum=64,maximum=4096"`
	// Hosts of one LAN reach each other at their external addresses.
	Hairpin *bool `yaml:"hairpin" json:"hairpin,omitempty"`
	// How long an idle UDP mapping lives.
	UDPTimeout *time.Duration `yaml:"udp_timeout" json:"udp_timeout,omitempty" jsonschema:"type=string"`
	// The same of a UDP flow that has had no answer, or is not yet two seconds
	// old; udp_timeout if left out.
	UDPUnreplied *time.Duration `yaml:"udp_unreplied_timeout" json:"udp_unreplied_timeout,omitempty" jsonschema:"type=string"`
	// How long an idle TCP connection keeps its mapping, once established and
	// before that or while it closes.
	TCPEstablished *time.Duration `yaml:"tcp_established" json:"tcp_established,omitempty" jsonschema:"type=string"`
	TCPTransitory  *time.Duration `yaml:"tcp_transitory" json:"tcp_transitory,omitempty" jsonschema:"type=string"`
	// After how long a silent TCP connection is cut off.
	TCPIdle *time.Duration `yaml:"tcp_idle" json:"tcp_idle,omitempty" jsonschema:"type=string"`
	// How many UDP packets a second each internal address may send, and get.
	UDPRate *int `yaml:"udp_rate" json:"udp_rate,omitempty" jsonschema:"minimum=10"`
	// What becomes of packets that nobody asked for.
	Unsolicited *middlebox.Unsolicited `yaml:"unsolicited" json:"unsolicited,omitempty" jsonschema:"enum=drop,enum=reject,enum=confirm"`
	// Which packets keep a mapping alive.
	Refresh *middlebox.Refresh `yaml:"refresh" json:"refresh,omitempty" jsonschema:"enum=outbound,enum=both"`
	// How an external address is chosen where there are several.
	Pool *middlebox.Pool `yaml:"pool" json:"pool,omitempty" jsonschema:"enum=paired,enum=arbitrary"`
	// How many external addresses the box has.
	Addresses *int `yaml:"addresses" json:"addresses,omitempty" jsonschema:"minimum=1"`
	// Transports that the box stops, both ways, beside those of its preset.
	Block []middlebox.Protocol `yaml:"block" json:"block,omitempty" jsonschema:"enum=udp,enum=tcp"`
	// Destinations that the box stops, beside those of its preset: HOST,
	// HOST:PROTO or HOST:PROTO:PORT.
	Deny []string `yaml:"deny" json:"deny,omitempty"`
	// All that can be reached from inside, if anything is listed: PROTO or
	// PROTO:PORT.
	Allow []string `yaml:"allow" json:"allow,omitempty"`
	// The only way out, by a program in the box: http-connect is an HTTP proxy at
	// port 8888 of the box's address inside that connects to port 443 (RFC 9110
	// section 9.3.6) and passes plain requests on to port 80.
	Proxy *middlebox.Proxy `yaml:"proxy" json:"proxy,omitempty" jsonschema:"enum=none,enum=http-connect"`
	// Hosts inside may ask the box to let everybody in to a port of theirs, by
	// UPnP IGD, NAT-PMP (RFC 6886) or PCP (RFC 6887).
	PortMapping *bool `yaml:"port_mapping" json:"port_mapping,omitempty"`
}

// Host is a machine.
type Host struct {
	// The box that the host is behind; the internet if left out.
	Behind string `yaml:"behind" json:"behind,omitempty"`
	// Its addresses, one or a list, for a host on the internet.
	IP []Addr `yaml:"ip" json:"ip,omitempty"`
	// What the uplink does to packets.
	Link *Link `yaml:"link" json:"link,omitempty"`

	varies bool // a step changes what the uplink loses
}

// Link is what an uplink does to packets, both ways alike unless up or down
// say otherwise.
type Link struct {
	Shape `yaml:",inline"`
	// Towards the internet.
	Up *Shape `yaml:"up" json:"up,omitempty"`
	// From the internet.
	Down *Shape `yaml:"down" json:"down,omitempty"`
}

// Shape is one direction of a link.
type Shape struct {
	// Bits per second: 128kbit, 2mbit.
	Rate Rate `yaml:"rate" json:"rate,omitempty"`
	// One way.
	Delay time.Duration `yaml:"delay" json:"delay,omitempty" jsonschema:"type=string"`
	// How far the delay varies.
	Jitter time.Duration `yaml:"jitter" json:"jitter,omitempty" jsonschema:"type=string"`
	// The share of packets that is lost: 1%.
	Loss Share `yaml:"loss" json:"loss,omitempty"`
}

// Node is what runs on a host: a role of the reference overlay, or anybody's
// executable or image.
type Node struct {
	// login, update, supernode or client; any word for an executable.
	Role string `yaml:"role" json:"role,omitempty"`
	// An executable with its arguments that speaks the control protocol.
	Exec []string `yaml:"exec" json:"exec,omitempty"`
	// An image of the Docker engine that speaks the control protocol, run as it
	// is; with the container backend only.
	Image string `yaml:"image" json:"image,omitempty"`
	// Handed to the node as it is.
	Settings Raw `yaml:"settings" json:"settings,omitempty"`
}

// Foreign says whether the node is somebody else's than the reference
// overlay's.
func (n Node) Foreign() bool { return len(n.Exec) > 0 || n.Image != "" }

// Step is one thing that is driven, or that the lab does. Exactly one of its
// actions is set.
type Step struct {
	// Clients that log in, one after the other.
	Login []string `yaml:"login" json:"login,omitempty"`
	// A caller looks for a callee and is authorized.
	Search *Pair `yaml:"search" json:"search,omitempty"`
	// A callee learns that the caller came on-line.
	Presence *Pair `yaml:"presence" json:"presence,omitempty"`
	// A caller calls a callee.
	Call *Call `yaml:"call" json:"call,omitempty"`
	// Several talk, one of them mixes.
	Conference *Conference `yaml:"conference" json:"conference,omitempty"`
	// A function of a foreign node.
	Exchange     *Exchange `yaml:"exchange" json:"exchange,omitempty"`
	Intervention `yaml:",inline"`

	// The name of the step's checks, in place of what it does: a call named x
	// has the checks x/signalling and x/media.
	Name string `yaml:"name" json:"name,omitempty"`
	// What the wire must show.
	Expect *Expect `yaml:"expect" json:"expect,omitempty"`
	// How long the function may take; 10s if left out.
	Within *time.Duration `yaml:"within" json:"within,omitempty" jsonschema:"type=string"`
	// The claims that this step reproduces, in place of the file's.
	Claims []string `yaml:"claims" json:"claims,omitempty"`
}

// Pair is who does something with whom.
type Pair struct {
	Caller string `yaml:"caller" json:"caller"`
	Callee string `yaml:"callee" json:"callee"`
}

// Call is a call with its length.
type Call struct {
	Caller string `yaml:"caller" json:"caller"`
	Callee string `yaml:"callee" json:"callee"`
	// How long media flows once both are connected; 2s if left out.
	For time.Duration `yaml:"for" json:"for,omitempty" jsonschema:"type=string"`
	// What happens in the middle of it, in order. Media is then judged twice: as
	// media until the first event, as after from the last one on.
	During []Event `yaml:"during" json:"during,omitempty"`
}

// Conference is who starts one and who takes part.
type Conference struct {
	Starter string   `yaml:"starter" json:"starter"`
	Members []string `yaml:"members" json:"members"`
}

// Exchange is a function that only foreign nodes have.
type Exchange struct {
	Function string `yaml:"function" json:"function"`
	Caller   string `yaml:"caller" json:"caller"`
	Callee   string `yaml:"callee" json:"callee"`
	// How many bytes the payload has; 32 to 48 KiB if left out, at random.
	Payload int `yaml:"payload" json:"payload,omitempty" jsonschema:"minimum=64"`
}

// BoxName is which box something happens to.
type BoxName struct {
	Box string `yaml:"box" json:"box"`
}

// BoxChange replaces the behaviour of a box while everything runs.
type BoxChange struct {
	Box    string `yaml:"box" json:"box"`
	Preset string `yaml:"preset" json:"preset,omitempty"`

	Overrides `yaml:",inline"`
}

// Expect is what the wire must show of a function, and what a client must
// have found out.
type Expect struct {
	verdict.Expectation `yaml:",inline"`

	// Of a call: its signalling and its media, each by itself.
	Signalling *verdict.Expectation `yaml:"signalling" json:"signalling,omitempty"`
	Media      *verdict.Expectation `yaml:"media" json:"media,omitempty"`
	// Of a call in the middle of which something happens: its media from then on.
	After *verdict.Expectation `yaml:"after" json:"after,omitempty"`
	// Of a login: the box that the client must find itself behind.
	Middlebox *Found `yaml:"middlebox" json:"middlebox,omitempty"`
}

// Found is a client's finding about its box, in the words of RFC 4787.
type Found struct {
	UDP       *bool  `yaml:"udp" json:"udp,omitempty"`
	Mapping   string `yaml:"mapping" json:"mapping,omitempty" jsonschema:"enum=none,enum=endpoint-independent,enum=address-dependent,enum=address-and-port-dependent"`
	Filtering string `yaml:"filtering" json:"filtering,omitempty" jsonschema:"enum=endpoint-independent,enum=address-dependent,enum=address-and-port-dependent"`
}

// Raw is any YAML, kept as JSON.
type Raw json.RawMessage
