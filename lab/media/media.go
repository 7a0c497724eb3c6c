// Package media says what of a call's load came when, from recorded packets
// alone: how many of its packets each end sent and got, how large they are, how
// many a second, and for how long an end got none.
//
// Media may be encrypted, so its packets are told by their size: that which most
// packets of the load have that came to the callee in the window.
package media

import (
	"time"

	"gauntlet/lab/evidence"
)

// The 2004 load (reference/papers.md section 2.1): so many packets a second each
// way, each of so many bytes of UDP payload. Over TCP each has a length before
// it, RFC 4571 section 2.
const (
	Rate       = 70
	PacketSize = 67
	Framing    = 2
)

// IsLoad says whether a packet has the size of one of the 2004 load's, or over
// TCP of a few of them.
func IsLoad(p evidence.Packet) bool {
	return Packets(p.Transport, p.Payload, PacketSize) > 0
}

// Packets is how many media packets of a size there are in the payload of a
// datagram or of a segment, 0 if it holds something else. The size is without
// framing, which a segment has before each.
func Packets(transport string, payload, size int) int {
	whole := size
	if transport == evidence.TCP {
		whole += Framing
	}
	switch {
	case size <= 0 || payload <= 0 || payload%whole != 0:
		return 0
	case transport == evidence.TCP:
		return payload / whole
	case payload == whole:
		return 1
	}
	return 0
}

// Size is that of the media packets that came to a host over some flows in a window,
// without framing: that of most packets with payload, 0 if there are none.
func Size(flows []*evidence.Flow, host string, from, to time.Time) (size int) {
	counts := map[int]int{}
	for _, f := range flows {
		for _, a := range f.Arrivals(host) {
			if a.Bytes == 0 || a.Time.Before(from) || a.Time.After(to) {
				continue
			}
			n := a.Bytes
			if f.Transport == evidence.TCP {
				n -= Framing
			}
			counts[n]++
			if counts[n] > counts[size] || counts[n] == counts[size] && n < size {
				size = n
			}
		}
	}
	return size
}
