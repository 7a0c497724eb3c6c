// Package path says by which path a function went, from recorded packets
// alone.
package path

import "gauntlet/lab/evidence"

// The paths, as design.md defines them. An end is free if no box on its side
// filters what the peer sends.
const (
	// Direct: no node between, and the callee's end is free.
	Direct = "direct"
	// Reversed: no node between, and only the caller's end is free.
	Reversed = "reversed"
	// Punched: no node between, and neither end is free.
	Punched = "punched"
	// Relayed: the payload crosses other nodes.
	Relayed = "relayed"
	// Failed: nothing got through in the time given.
	Failed = "failed"
)

// Record is the path of one function.
type Record struct {
	// Path is Direct, Reversed, Punched, Relayed or Failed.
	Path string `json:"path"`
	// Relays is the number of hosts that carry or stand by: with each of them
	// both ends hold a TCP connection made in the exchange.
	Relays int `json:"relays"`
	// Carrying is how many of the relays next to the caller carry payload.
	Carrying int `json:"carrying"`
	// Hops is the number of relays in a chain that carries.
	Hops int `json:"hops"`
	// Legs are the flows that carry, from the caller on.
	Legs []Leg `json:"legs"`
}

// Leg is one hop of the payload between two hosts.
type Leg struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Transport is "udp" or "tcp".
	Transport string `json:"transport"`
}

// Finding is a path with what led to it.
type Finding struct {
	Record Record `json:"record"`
	// Inconclusive says why the path cannot be told, "" if it can.
	Inconclusive string `json:"inconclusive,omitempty"`
	// Notes are the steps of the reasoning, one sentence each.
	Notes []string `json:"notes,omitempty"`
	// Drops are the packets between the two ends that boxes dropped since the
	// function began, in order.
	Drops []evidence.Drop `json:"drops,omitempty"`
	// Flows name the flows that carry.
	Flows []string `json:"flows,omitempty"`
}
