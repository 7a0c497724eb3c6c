// Package model does in memory what a box of package middlebox does in the
// kernel: a state, a packet and the time give the packet that leaves, or the
// rule that dropped it. It reads no clock and chooses no port by chance.
//
// It is the specification of middlebox's rules: a property test feeds both
// with the same packets. The oracle of path theory reads it too.
package model

import (
	"fmt"
	"net/netip"
	"strings"

	"gauntlet/middlebox"
)

// Side is a side of a box.
type Side int

// The sides.
const (
	Inside Side = iota
	Outside
)

func (s Side) String() string { return [...]string{"inside", "outside"}[s] }

// Flags are those of a TCP segment that a box looks at (RFC 9293 §3.1).
type Flags uint8

// The flags, with their bits in the header.
const (
	FIN Flags = 1 << 0
	SYN Flags = 1 << 1
	RST Flags = 1 << 2
	ACK Flags = 1 << 4
)

func (f Flags) String() string {
	var names []string
	for _, one := range []struct {
		bit  Flags
		name string
	}{{SYN, "SYN"}, {FIN, "FIN"}, {RST, "RST"}, {ACK, "ACK"}} {
		if f&one.bit != 0 {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, "-")
}

// Packet is what a box looks at.
type Packet struct {
	Protocol middlebox.Protocol
	From, To netip.AddrPort
	Flags    Flags // of TCP
}

func (p Packet) String() string {
	what := string(p.Protocol)
	if p.Protocol == middlebox.TCP {
		what += " " + p.Flags.String()
	}
	return fmt.Sprintf("%s %v > %v", what, p.From, p.To)
}

// Untracked stands in the place of a rule where connection tracking itself drops
// a packet, since it would make two connections one.
const Untracked = "connection tracking"

// Fate is what becomes of a packet: either it leaves to a side, or a rule
// dropped it, or the box itself is its end.
type Fate struct {
	Packet  Packet // as it leaves
	To      Side   // where it leaves to
	Dropped string // name of the rule that dropped it, one of middlebox's, or Untracked; "" if none did
	Local   bool   // delivered to the box itself
}

func (f Fate) String() string {
	switch {
	case f.Dropped != "":
		return "dropped by " + f.Dropped
	case f.Local:
		return "delivered to the box"
	}
	return fmt.Sprintf("%v to the %v", f.Packet, f.To)
}
