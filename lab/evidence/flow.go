package evidence

import (
	"fmt"
	"net/netip"
	"time"
)

// The transports that flows are told apart by.
const (
	UDP = "udp"
	TCP = "tcp"
)

// Flow is one transport flow from end to end, both directions together, with
// what crossed it in the window that was asked for.
type Flow struct {
	// Transport is UDP or TCP.
	Transport string `json:"transport"`
	// A is the end that sent the first packet of the whole capture, B the other.
	A Endpoint `json:"a"`
	B Endpoint `json:"b"`
	// Toward are the hosts that the first packet may have been meant for:
	// B's host, or, where nothing arrived, all those behind the box that has
	// the address it was sent to.
	Toward []string `json:"toward,omitempty"`
	// First and Last are the times of the first and the last packet of the
	// whole capture, wherever a host's interface saw it.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Began is the time of the first packet in the window, Turned says that B
	// sent it. The zero time means that only drops are in the window.
	Began  time.Time `json:"began,omitzero"`
	Turned bool      `json:"turned,omitempty"`
	// Opened is when the answer to a TCP connection's SYN arrived; Closed is
	// when the first FIN or RST was seen. The zero time means never, up to the
	// end of the window.
	Opened time.Time `json:"opened,omitzero"`
	Closed time.Time `json:"closed,omitzero"`
	// Forward is what went from A to B, Backward from B to A.
	Forward  Traffic `json:"forward"`
	Backward Traffic `json:"backward"`
	// Drops are the flow's packets that boxes dropped in the window, in order.
	Drops []Drop `json:"drops,omitempty"`
	// Stuck names the box that translates and that no conntrack entry led the
	// flow through, "" if the flow was followed to its realm.
	Stuck string `json:"stuck,omitempty"`

	crossings map[string]crossing
	instance  *instance
	mapped    map[string]bool
}

// Endpoint is one end of a flow.
type Endpoint struct {
	// Host is the name of the host, "" if no host's interface saw the flow at
	// this end.
	Host string `json:"host,omitempty"`
	// Local is the end's address as its own host sees it, Seen as the other
	// end's realm sees it. They differ behind a NAT. Local is invalid where
	// Host is "", Seen where the flow never got out of its NAT.
	Local netip.AddrPort `json:"local,omitzero"`
	Seen  netip.AddrPort `json:"seen,omitzero"`
}

// Traffic is what crossed a flow in one direction within the window. Bytes are
// of transport payload; a TCP byte that was sent again counts once.
type Traffic struct {
	// Sent is what left the sender's own interface, Received what arrived at
	// the receiver's own interface.
	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
	// SentPackets and ReceivedPackets count packets, repeated ones too.
	SentPackets     int `json:"sent_packets"`
	ReceivedPackets int `json:"received_packets"`
	// FirstSent and FirstReceived are the first packets of the whole capture;
	// the zero time means none.
	FirstSent     time.Time `json:"first_sent,omitzero"`
	FirstReceived time.Time `json:"first_received,omitzero"`
}

// Drop is a packet of a flow that a box dropped.
type Drop struct {
	Time   time.Time `json:"time"`
	Router string    `json:"router"`
	Rule   string    `json:"rule"`
	// From is the host that sent the packet, "" if it is not known.
	From string `json:"from,omitempty"`
	// Source and Destination are the packet's at the router.
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
}

// crossing is when a flow's first packets passed a box's inner side, over the
// whole capture; zero where there was none.
type crossing struct {
	in, out time.Time
}

// Initiator is the host that sent the first packet, "" if its own interface
// was not captured.
func (f *Flow) Initiator() string { return f.A.Host }

// Between says whether the two hosts are the ends of the flow.
func (f *Flow) Between(a, b string) bool {
	return a != "" && b != "" && (f.A.Host == a && f.B.Host == b || f.A.Host == b && f.B.Host == a)
}

// Peer returns the host at the other end, "" if host is not an end.
func (f *Flow) Peer(host string) string {
	switch host {
	case f.A.Host:
		return f.B.Host
	case f.B.Host:
		return f.A.Host
	}
	return ""
}

// End returns the endpoint of a host and whether the host is an end.
func (f *Flow) End(host string) (Endpoint, bool) {
	switch {
	case host == "":
	case f.A.Host == host:
		return f.A, true
	case f.B.Host == host:
		return f.B, true
	}
	return Endpoint{}, false
}

// OutOf returns the traffic from a host to the other end, zero if the host is
// not an end.
func (f *Flow) OutOf(host string) Traffic {
	switch {
	case host == "":
	case f.A.Host == host:
		return f.Forward
	case f.B.Host == host:
		return f.Backward
	}
	return Traffic{}
}

// Into returns the traffic to a host from the other end, zero if the host is
// not an end.
func (f *Flow) Into(host string) Traffic {
	switch {
	case host == "":
	case f.A.Host == host:
		return f.Backward
	case f.B.Host == host:
		return f.Forward
	}
	return Traffic{}
}

// Crossed returns when the first packet inward and the first packet outward
// were seen on the box's inner interface, over the whole capture. ok is false
// where that interface saw none of the flow.
func (f *Flow) Crossed(box string) (in, out time.Time, ok bool) {
	c, ok := f.crossings[box]
	return c.in, c.out, ok
}

// Arrival is a packet of a flow at the interface of one of its ends. Bytes are of
// transport payload; a TCP byte that was there before doesn't count.
type Arrival struct {
	Time  time.Time
	Bytes int
}

// Arrivals are all packets that came to a host, over the whole capture; none if
// the host is not an end.
func (f *Flow) Arrivals(host string) []Arrival {
	return f.at(host, func(p packet) bool { return p.arrived && f.instance.ends[1-p.from].Host == host })
}

// Departures are all packets that left a host, likewise.
func (f *Flow) Departures(host string) []Arrival {
	return f.at(host, func(p packet) bool { return !p.arrived && f.instance.ends[p.from].Host == host })
}

func (f *Flow) at(host string, chosen func(packet) bool) (all []Arrival) {
	if f.instance == nil || host == "" {
		return nil
	}
	for _, p := range f.instance.packets {
		if chosen(p) {
			all = append(all, Arrival{moment(p.at), int(p.payload)})
		}
	}
	return all
}

// Mapped says whether a box let the flow in by a port mapping, which a host
// behind it has asked for: whatever its filtering, it filters none of it.
func (f *Flow) Mapped(box string) bool { return f.mapped[box] }

// String names the flow the way a person would follow it.
func (f *Flow) String() string {
	return fmt.Sprintf("%s %s -> %s", f.Transport, f.A, f.B)
}

// String gives host, own address and, where it differs, the address seen.
func (e Endpoint) String() string {
	switch {
	case e.Host == "" && e.Seen.IsValid():
		return e.Seen.String()
	case e.Host == "":
		return "nobody"
	case !e.Seen.IsValid() || e.Seen == e.Local:
		return e.Host + " " + e.Local.String()
	default:
		return fmt.Sprintf("%s %s (%s)", e.Host, e.Local, e.Seen)
	}
}
