package evidence

import (
	"net/netip"
	"time"
)

// Dump is a router's connection tracking table at one moment.
type Dump struct {
	Time   time.Time `json:"time"`
	Router string    `json:"router"`
	Flows  []Entry   `json:"flows"`
}

// Entry is one connection as a router tracked it. Reply is the tuple that the
// router expects of an answer: it is the mirror of Original unless the router
// translates. Which side Original comes from says nothing of who asked first.
type Entry struct {
	Transport       string    `json:"transport"`
	Original        Tuple     `json:"original"`
	Reply           Tuple     `json:"reply"`
	OriginalPackets uint64    `json:"original_packets"`
	OriginalBytes   uint64    `json:"original_bytes"`
	ReplyPackets    uint64    `json:"reply_packets"`
	ReplyBytes      uint64    `json:"reply_bytes"`
	Started         time.Time `json:"started,omitzero"`
	// Mapped says that the flow's inner endpoint has a port mapping, which a
	// host inside has asked the router for: whoever sends to it is let in.
	Mapped bool `json:"mapped,omitempty"`
}

// Tuple is the source and the destination of a packet.
type Tuple struct {
	Src netip.AddrPort `json:"src"`
	Dst netip.AddrPort `json:"dst"`
}

// Reverse is the tuple of an answer.
func (t Tuple) Reverse() Tuple { return Tuple{Src: t.Dst, Dst: t.Src} }

// String gives source and destination.
func (t Tuple) String() string { return t.Src.String() + " -> " + t.Dst.String() }
