package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"gauntlet/lab/evidence"
)

// maxSeen bounds how many flows are remembered: 16 MiB or so.
const maxSeen = 1 << 18

// seen remembers which flows were seen on any tap, either direction alike, and
// when the last new one came.
type seen struct {
	mu    sync.Mutex
	flows map[[13]byte]struct{}
	at    time.Time
	name  string
	full  bool
}

func newSeen(start time.Time) *seen {
	return &seen{flows: make(map[[13]byte]struct{}), at: start}
}

// note records the flow of a packet that a tap saw at a time.
func (s *seen) note(at time.Time, p evidence.Packet) {
	key := flowKey(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.flows[key]; known {
		return
	}
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

// flowKey is the transport and both ends of an IPv4 flow, the smaller first.
func flowKey(p evidence.Packet) (key [13]byte) {
	var src, dst [6]byte
	address := p.Tuple.Src.Addr().As4()
	copy(src[:], address[:])
	binary.BigEndian.PutUint16(src[4:], p.Tuple.Src.Port())
	address = p.Tuple.Dst.Addr().As4()
	copy(dst[:], address[:])
	binary.BigEndian.PutUint16(dst[4:], p.Tuple.Dst.Port())
	if bytes.Compare(src[:], dst[:]) > 0 {
		src, dst = dst, src
	}
	if p.Transport == evidence.TCP {
		key[0] = 1
	}
	copy(key[1:], src[:])
	copy(key[7:], dst[:])
	return key
}
