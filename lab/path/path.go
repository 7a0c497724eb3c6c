// Package path says by which path a function went, from recorded packets
// alone.
package path

import "slices"

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

// RelayNames are the hosts that carry, in the order of the legs.
func (r Record) RelayNames() (names []string) {
	if r.Path != Relayed {
		return nil
	}
	for n, leg := range r.Legs {
		if n > 0 && !slices.Contains(names, leg.From) && leg.From != r.Legs[0].From {
			names = append(names, leg.From)
		}
	}
	return names
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
	// Drops are the packets that boxes dropped since the function began, in
	// order: those between the two ends, or where the path failed and none of
	// these was dropped, those of either end. MoreDrops is how many are left out
	// at the end.
	Drops     []Drop `json:"drops,omitempty"`
	MoreDrops int    `json:"more_drops,omitempty"`
	// Times are how long it took, nil where nothing got through.
	Times *Times `json:"times,omitempty"`
	// Flows name the flows that carry.
	Flows []string `json:"flows,omitempty"`
}

// Drop is a packet that a box dropped, and why.
type Drop struct {
	// Offset is the time since the function began, in seconds.
	Offset float64 `json:"offset_seconds"`
	// From and To are the hosts that sent it and that it was meant for, ""
	// where that can't be told.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Transport is "udp" or "tcp", Source and Destination the packet's as the
	// router saw them.
	Transport   string `json:"transport"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Router      string `json:"router"`
	Rule        string `json:"rule"`
	// LetIn is what would have let it pass, in words.
	LetIn string `json:"let_in"`
}
