package capture

import (
	"net/netip"
	"testing"
	"time"

	"gauntlet/lab/evidence"
)

// A flow is new once, whichever way its packets go; another end, port or
// transport makes another flow.
func TestSeen(t *testing.T) {
	start := time.Unix(1000, 0)
	s := newSeen(start)
	if at, name := s.last(); !at.Equal(start) || name != "" {
		t.Errorf("before any packet: %q at %v", name, at)
	}
	const a, b, top = "10.0.1.2:4000", "198.18.1.2:5000", "255.255.255.255:65535"
	for i, c := range []struct {
		transport, src, dst string
		fresh               bool
	}{
		{evidence.UDP, a, b, true},
		{evidence.UDP, b, a, false},
		{evidence.UDP, a, b, false},
		{evidence.TCP, b, a, true},
		{evidence.TCP, a, b, false},
		{evidence.UDP, a, "198.18.1.2:5001", true},
		{evidence.UDP, "10.0.1.2:5000", "198.18.1.2:4000", true},
		{evidence.UDP, "10.0.1.3:4000", b, true},
		{evidence.UDP, "10.0.1.3:4000", "198.18.1.3:5000", true},
		{evidence.TCP, top, top, true},
		{evidence.UDP, top, top, true},
		{evidence.UDP, b, a, false},
	} {
		at := start.Add(time.Duration(i+1) * time.Second)
		p := evidence.Packet{Transport: c.transport, Tuple: evidence.Tuple{
			Src: netip.MustParseAddrPort(c.src), Dst: netip.MustParseAddrPort(c.dst),
		}}
		s.note(at, p)
		name := c.transport + " " + p.Tuple.String()
		if when, last := s.last(); c.fresh != (when.Equal(at) && last == name) {
			t.Errorf("after %s the last new flow is %q of %v; new: %v", name, last, when, c.fresh)
		}
	}
	if s.overflow() {
		t.Error("a few flows are too many")
	}
}
