package middlebox

import "slices"

// preset is a behaviour with a name.
type preset struct {
	name      string
	behaviour Behaviour
}

// statefulFirewall lets out everything and in only answers, as packet filters
// with connection tracking do unless told otherwise.
var statefulFirewall = Behaviour{Filtering: FilterAddressAndPortDependent}

// general are presets of no device. Those of NATs use the names of RFC 3489 §5,
// as everybody does, though RFC 4787 §3 gave the words up. All NATs have UDP
// timers of 5 minutes (RFC 4787, REQ-5).
var general = []preset{
	// A router that looks at nothing: the control, where every path is direct.
	{"open", Behaviour{}},

	// RFC 3489's full cone: whoever sends to a mapped port is let in. libslirp
	// does it (see "slirp"); RFC 4787, REQ-8 recommends it where transparency
	// matters most. It concerns UDP, as RFC 3489 does; for TCP the box is
	// port-restricted.
	{"full-cone", Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterEndpointIndependent}},

	// RFC 3489's restricted cone: an address that the endpoint has sent to is
	// let in, from any port. RFC 4787, REQ-8 recommends it where security
	// matters more. It concerns UDP, as RFC 3489 does; for TCP the box is
	// port-restricted.
	{"restricted-cone", Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressDependent}},

	// RFC 3489's port-restricted cone: Linux masquerading with unsolicited packets
	// dropped; home routers that refuse them are "openwrt".
	{"port-restricted", Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent}},

	// RFC 3489's symmetric NAT: a new random external port for every
	// destination. Enterprise NATs and pf have it (see "pan-os", "netdefendos",
	// "pf"), and masquerading with "fully-random".
	{"symmetric", Behaviour{Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent}},

	// The same with ports that follow each other, so that a peer can predict the
	// next: the "predict" case of path theory, as in RFC 5128 §3.5.
	{"symmetric-sequential", Behaviour{Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: SequentialPorts}},

	// A port-restricted cone that answers unsolicited packets itself and
	// remembers them: Linux masquerading without any filter (see "linux"). A STUN
	// test sees a port-restricted cone, but a punch fails if the peer's packet
	// comes first.
	{"confirming-router", Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Unsolicited: ConfirmUnsolicited}},

	// The NAT of a provider, as RFC 6888 asks for: RFC 4787's behaviour with
	// hairpinning (REQ-1), paired pooling (REQ-2), a limited number of ports for
	// each subscriber (REQ-4), here a block (RFC 7422), and endpoint-independent
	// filtering (REQ-7), of TCP too: REQ-1 asks for RFC 5382 beside RFC 4787, and
	// REQ-7 names neither.
	{"cgnat", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterEndpointIndependent, TCPFiltering: FilterEndpointIndependent,
		Ports: BlockPorts, Hairpin: true,
	}},

	{"stateful-firewall", statefulFirewall},

	// The firewall of an enterprise that allows no UDP at all: Baset and
	// Schulzrinne 2004 §4, their "UDP-restricted firewall".
	{"udp-blocked", with(statefulFirewall, func(b *Behaviour) { b.Block = []Protocol{UDP} })},

	// A firewall that stops the login server, as the lecture has it: the host
	// "login" is out of reach over TCP.
	{"login-blocked", with(statefulFirewall, func(b *Behaviour) { b.Deny = []Deny{{Host: "login", Protocol: TCP}} })},

	// A firewall that stops all TCP, flows that exist already too.
	{"tcp-blocked", with(statefulFirewall, func(b *Behaviour) { b.Block = []Protocol{TCP} })},

	// A firewall that lets out the web and nothing else: TCP to ports 80 and 443,
	// to which Baset and Schulzrinne 2004 §4 saw the client fall back.
	{"web-only", with(statefulFirewall, func(b *Behaviour) { b.Allow = []Service{{TCP, 80}, {TCP, 443}} })},

	// The firewall of an enterprise whose only way out is its HTTP proxy: the
	// CONNECT method (RFC 9110 §9.3.6) to port 443 and plain requests to port 80.
	// Ports as tinyproxy and Squid allow them as delivered (Squid's SSL_ports).
	{"http-connect", with(statefulFirewall, func(b *Behaviour) { b.Proxy = ProxyHTTPConnect })},
}

// presets are in the order in which they are listed to people.
var presets = append(slices.Clone(general), ofDevices()...)

// with returns a behaviour with a change.
func with(b Behaviour, change func(*Behaviour)) Behaviour {
	change(&b)
	return b
}

// Preset returns the behaviour of that name. The caller may change it.
func Preset(name string) (Behaviour, bool) {
	for _, p := range presets {
		if p.name == name {
			b := p.behaviour
			b.Block, b.Deny, b.Allow = slices.Clone(b.Block), slices.Clone(b.Deny), slices.Clone(b.Allow)
			return b, true
		}
	}
	return Behaviour{}, false
}

// Presets returns the names of all presets, in the order in which they are
// listed to people: first those of no device, then Devices.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}
