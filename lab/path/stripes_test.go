package path_test

import (
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
)

// A payload in pieces that are too small to carry it, one by one, is seen by
// their sum, be it the only copy or another; what is less than the payload in all
// is not held against anybody.
func TestStripes(t *testing.T) {
	direct := between(path.Direct, evidence.UDP)
	failed := path.Record{Path: path.Failed, Legs: []path.Leg{}}
	for _, c := range []struct {
		name   string
		whole  bool // it goes straight to bob, too
		from   string
		to     string
		bytes  int
		pieces int
		want   path.Record
		doubt  string
	}{
		{"a second copy, to another host", true, "alice", sn1, small, 6, direct, "900 bytes went out of alice, as much as the payload, over 6 flows, each too small to carry it: udp alice"},
		{"the only copy, to the callee", false, "alice", homeB, small, 5, failed, "went out of alice, as much as the payload, over 5 flows"},
		{"from a relay to the callee", true, "sn1", homeB, small, 10, direct, "900 bytes came to bob, as much as the payload, over 10 flows"},
		{"a little less", true, "alice", sn1, small - 6, 6, direct, ""},
		{"nothing but that", false, "alice", sn1, small - 6, 6, failed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, apdf, eif)
			for n := range c.pieces { // bob's bindings for what comes in pieces
				s.Socket(evidence.UDP, "bob", uint16(5001+n)).Send(at(sn1, 3478), 20)
			}
			s.begin(small)
			if c.whole {
				s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
			}
			for n := range c.pieces {
				port := uint16(7)
				if c.to == homeB {
					port = uint16(5001 + n)
				}
				s.Socket(evidence.UDP, c.from, uint16(6000+n)).Send(at(c.to, port), c.bytes/c.pieces)
			}
			s.expect(c.want, c.doubt)
		})
	}
}
