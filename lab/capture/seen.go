package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"gauntlet/lab/evidence"
)

// maxSeen bounds how many flows are remembered: 16 MiB or so.
const maxSeen = 1 << 18

// seen remembers which flows were seen on any tap, either direction alike, and
// when the last new one came.
type seen struct {
	flows map[flowKey]struct{} // the reader's alone

	mu   sync.Mutex // guards what follows
	at   time.Time
	name string
	full bool
}

func newSeen(start time.Time) *seen {
	return &seen{flows: make(map[flowKey]struct{}), at: start}
}

// note records the flow of a packet that a tap saw at a time. Only the reader
// calls it.
func (s *seen) note(at time.Time, p evidence.Packet) {
	key := keyOf(p)
	if _, known := s.flows[key]; known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flows) == maxSeen {
		s.full = true
		return
	}
	s.flows[key] = struct{}{}
	if at.After(s.at) || s.name == "" {
		s.at, s.name = at, fmt.Sprintf("%s %s", p.Transport, p.Tuple)
	}
}

// last is when the last new flow came, and its name; the start and "" if none
// has.
func (s *seen) last() (time.Time, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, s.name
}

func (s *seen) overflow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// flowKey is both ends of an IPv4 flow, the smaller first, with the transport in
// the first.
type flowKey [2]uint64

func keyOf(p evidence.Packet) flowKey {
	low, high := endKey(p.Tuple.Src), endKey(p.Tuple.Dst)
	if low > high {
		low, high = high, low
	}
	if p.Transport == evidence.TCP {
		low |= 1 << 48
	}
	return flowKey{low, high}
}

// endKey is an address and a port, in 48 bits.
func endKey(end netip.AddrPort) uint64 {
	address := end.Addr().As4()
	return uint64(binary.BigEndian.Uint32(address[:]))<<16 | uint64(end.Port())
}
