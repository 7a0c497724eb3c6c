package evidence

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestSequences compares the ranges with a set of numbers, around the place
// where sequence numbers begin again at zero.
func TestSequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Uint32().Draw(t, "base")
		var s sequences
		known := map[uint32]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "segments") {
			seq := base + uint32(rapid.IntRange(0, 2000).Draw(t, "offset"))
			length := rapid.IntRange(1, 300).Draw(t, "length")
			var want int64
			for n := range uint32(length) {
				if !known[seq+n] {
					known[seq+n] = true
					want++
				}
			}
			if got := s.add(seq, int64(length)); got != want {
				t.Fatalf("%d bytes from %d: %d new, want %d", length, seq, got, want)
			}
		}
	})
}

// TestCountOnce: a SYN takes one number before its data.
func TestCountOnce(t *testing.T) {
	list := []packet{
		{event: event{seq: 7, flags: SYN, payload: 10}},
		{event: event{seq: 8, flags: ACK, payload: 10}},
		{event: event{seq: 18, flags: ACK, payload: 5}},
		{event: event{seq: 18, flags: ACK, payload: 5}, arrived: true},
		{event: event{seq: 18, flags: ACK, payload: 5}, from: 1},
		{event: event{seq: 10, flags: ACK, payload: 20}},
	}
	countOnce(list)
	for n, want := range []uint16{10, 0, 5, 5, 5, 7} {
		if list[n].payload != want {
			t.Errorf("packet %d has %d new bytes, want %d", n, list[n].payload, want)
		}
	}
}

// TestFragments gives a later fragment to the flow of the first.
func TestFragments(t *testing.T) {
	w := World{Hosts: []Host{{Name: "alice", Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.2")}}}}
	j := newJoiner(&w)
	frame := func(offset, payload int, more bool) []byte {
		f := make([]byte, etherHeader+20+payload)
		binary.BigEndian.PutUint16(f[12:], etherIPv4)
		ip := f[etherHeader:]
		ip[0], ip[9] = 0x45, protocolUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], 77)
		binary.BigEndian.PutUint16(ip[6:], uint16(offset/8))
		if more {
			ip[6] |= 0x20
		}
		copy(ip[12:], []byte{198, 18, 0, 2, 198, 18, 0, 9})
		return f
	}
	begin := time.Unix(1000, 0)
	for n, f := range [][]byte{frame(0, 1008, true), frame(1008, 1008, true), frame(2016, 100, false)} {
		j.packet(CapturedPacket{Time: begin.Add(time.Duration(n)), Tap: "alice/eth0", Length: len(f), Data: f})
	}
	all := j.instances()
	if len(all) != 1 {
		t.Fatalf("%d flows, not one", len(all))
	}
	if f := all[0].flow(-1<<63, 1<<63-1); f.Forward.Sent != 2108 || f.Forward.SentPackets != 3 {
		t.Errorf("a datagram of 2,108 bytes in three fragments counts as %+v", f.Forward)
	}
}

// TestContradiction: entries without times that contradict each other say
// nothing.
func TestContradiction(t *testing.T) {
	parse := netip.MustParseAddrPort
	inner := Tuple{parse("10.0.1.2:4000"), parse("198.18.0.9:53")}
	entry := func(port uint16, started time.Time) Entry {
		return Entry{Transport: UDP, Original: inner, Started: started, Reply: Tuple{
			Src: inner.Dst, Dst: netip.AddrPortFrom(netip.MustParseAddr("198.18.1.1"), port),
		}}
	}
	table := translations{}
	table.add(entry(1, time.Time{}))
	table.add(entry(1, time.Time{}))
	if _, ok := table.outside(UDP, inner, time.Unix(5, 0)); !ok {
		t.Error("the same entry twice is not found")
	}
	table.add(entry(2, time.Time{}))
	if outer, ok := table.outside(UDP, inner, time.Unix(5, 0)); ok {
		t.Errorf("of two entries without times one was guessed: %v", outer)
	}
	table = translations{}
	table.add(entry(2, time.Unix(20, 0)))
	table.add(entry(1, time.Unix(10, 0)))
	for at, want := range map[int64]uint16{9: 1, 15: 1, 21: 2} {
		if outer, ok := table.outside(UDP, inner, time.Unix(at, 0)); !ok || outer.outside.Src.Port() != want {
			t.Errorf("at %d s: %v, want port %d", at, outer, want)
		}
	}
	// The packet that makes the second entry leaves its host before.
	if outer, _ := table.outside(UDP, inner, time.Unix(20, 0).Add(-creation/2)); outer.outside.Src.Port() != 2 {
		t.Errorf("the packet that made the entry was given to %v", outer)
	}
	// Of two at once, packets leave by the one that says so, though the other is newer:
	// that lets in what is sent to a mapping for others.
	table = translations{}
	leaving, letting := entry(1, time.Unix(10, 0)), entry(2, time.Unix(20, 0))
	leaving.OriginalPackets = 5
	letting.Original, letting.Reply = letting.Reply, letting.Original
	letting.OriginalPackets = 1
	table.add(letting)
	for range 2 { // of two dumps
		table.add(leaving)
		leaving.OriginalPackets++
	}
	if outer, ok := table.outside(UDP, inner, time.Unix(30, 0)); !ok || outer.outside.Src.Port() != 1 || outer.left != 6 {
		t.Errorf("%+v, want port 1, which 6 packets left by", outer)
	}
}
