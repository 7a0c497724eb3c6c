package topo

import (
	"net/netip"
	"time"
)

// InternetName is the name of the namespace that every outermost box and every
// public host is attached to. No host or box may take it.
const InternetName = "internet"

// Description is a topology as its author wrote it. Boxes and Hosts are in the
// order of the file, which decides the addresses they get.
type Description struct {
	Boxes []BoxDescription
	Hosts []HostDescription
}

// BoxDescription is one middlebox.
type BoxDescription struct {
	// Name is 1 to 32 of a-z, 0-9 and the hyphen, different from every other.
	Name string
	// Behind is the box that this one is behind, "" on the internet.
	Behind string
	// Translates says that the box has a private LAN and translates its
	// addresses. A box that doesn't (a firewall) gives its hosts addresses of
	// the realm outside, to which the routers outward have a route.
	Translates bool
	// Addresses is the number of external addresses; 0 means 1.
	Addresses int
	// Link shapes the box's uplink.
	Link Link
}

// HostDescription is one host.
type HostDescription struct {
	// Name is 1 to 32 of a-z, 0-9 and the hyphen, different from every other.
	Name string
	// Behind is the box that the host is behind, "" on the internet.
	Behind string
	// IPs are the addresses its author gave it; none means one from the plan.
	// Only a host on the internet may be given addresses.
	IPs []netip.Addr
	// Link shapes the host's uplink.
	Link Link
}

// Link shapes an uplink, each direction by itself. The zero value shapes
// nothing.
type Link struct {
	Up   Shape `json:"up,omitzero"`   // towards the internet
	Down Shape `json:"down,omitzero"` // from the internet
	// Varies says that what the link loses may be changed while it is used, even
	// if it loses nothing at first.
	Varies bool `json:"varies,omitempty"`
}

// Shape is what one direction of a link does to packets: first the rate, then
// loss and delay. A zero field does nothing. No packet overtakes another; see
// pump.Impairment for what is random.
type Shape struct {
	Rate   uint64        `json:"rate_bits_per_second,omitempty"`
	Delay  time.Duration `json:"delay_ns,omitempty"`  // of every packet, one way
	Jitter time.Duration `json:"jitter_ns,omitempty"` // delay varies by up to this, either way, evenly
	Loss   float64       `json:"loss,omitempty"`      // share of packets lost, 0 to 1
}

// Problem is one thing that is wrong with a Description.
type Problem struct {
	// Path leads to the place in the scenario file below "topology", such as
	// "hosts", "alice", "behind". Where a value is one of several in a list,
	// its index, counted from 0, is the last element.
	Path []string
	// Message says what is wrong and what was expected.
	Message string
}
