package path_test

import (
	"math"
	"net/netip"
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
)

// What would have let a packet in, by what the box maps and filters and by what
// was sent before and after.
func TestLetIn(t *testing.T) {
	symmetric := func(s *scene, box string) {
		s.Symmetric[box] = true
		for n := range s.World.Behaviours {
			if s.World.Behaviours[n].Box == box {
				s.World.Behaviours[n].Mapping = "address-and-port-dependent"
			}
		}
	}
	for _, test := range []struct {
		name string
		b    evidence.Filtering
		do   func(s *scene, alice, bob *evidencetest.Socket)
		want string
	}{
		{"never asked", apdf, func(_ *scene, alice, _ *evidencetest.Socket) {
			alice.Send(at(homeB, 5000), 50)
		}, "had bob sent to 198.18.1.1:4000 first (address-and-port-dependent filtering)"},
		{"asked too late", apdf, func(_ *scene, alice, bob *evidencetest.Socket) {
			alice.Send(at(homeB, 5000), 50)
			bob.Send(at(homeA, 4000), 50)
		}, "had bob sent to 198.18.1.1:4000 first (address-and-port-dependent filtering); it did 960µs later"},
		{"asked another port", apdf, func(_ *scene, alice, bob *evidencetest.Socket) {
			bob.Send(at(homeA, 4001), 50)
			alice.Send(at(homeB, 5000), 50)
		}, "had bob sent to 198.18.1.1:4000 first (address-and-port-dependent filtering)"},
		{"any port of the address would do", adf, func(_ *scene, alice, bob *evidencetest.Socket) {
			alice.Send(at(homeB, 5000), 50)
			bob.Send(at(homeA, 4001), 50)
		}, "had bob sent to 198.18.1.1 first (address-dependent filtering); it did 960µs later"},
		{"asked, and forgotten since", apdf, func(s *scene, alice, bob *evidencetest.Socket) {
			bob.Send(at(homeA, 4000), 50)
			s.Forget("home-b")
			alice.Send(at(homeB, 5000), 50)
		}, "had bob sent to 198.18.1.1:4000 again (address-and-port-dependent filtering): what it sent 1.04ms before was forgotten"},
		{"no mapping", apdf, func(_ *scene, alice, _ *evidencetest.Socket) {
			alice.Send(at(homeB, 5001), 50)
		}, "no mapping of 198.18.1.2:5001: nothing inside sent from it"},
		{"no mapping yet", eif, func(s *scene, alice, _ *evidencetest.Socket) {
			alice.Send(at(homeB, 5001), 50)
			s.Socket(evidence.UDP, "bob", 5001).Send(at(sn1, 3478), 20)
		}, "no mapping of 198.18.1.2:5001 yet: bob sent from it 960µs later"},
		{"a mapping for somebody else", apdf, func(s *scene, alice, bob *evidencetest.Socket) {
			symmetric(s, "home-b")
			_, from := bob.Send(at(sn2, 3478), 20)
			alice.Send(from, 50)
		}, "had 198.18.0.12:3478 sent it: 198.18.1.2:20000 is bob's mapping towards that alone (address-and-port-dependent mapping); it has none towards 198.18.1.1:4000"},
		{"the other mapping", apdf, func(s *scene, alice, bob *evidencetest.Socket) {
			symmetric(s, "home-b")
			_, from := bob.Send(at(sn2, 3478), 20)
			bob.Send(at(homeA, 4000), 50)
			alice.Send(from, 50)
		}, "had it been sent to 198.18.1.2:20001: bob's mapping towards 198.18.1.1:4000 (address-and-port-dependent mapping)"},
		{"blocked", apdf, func(s *scene, alice, _ *evidencetest.Socket) {
			s.Block["home-a"] = evidence.UDP
			alice.Send(at(homeB, 5000), 50)
		}, "udp is blocked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, apdf, test.b).begin(small)
			alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5000)
			test.do(s, alice, bob)
			found := s.find()
			for _, d := range found.Drops {
				if d.Transport == evidence.UDP && d.LetIn == test.want {
					return
				}
			}
			t.Errorf("drops %+v\nwant %q", found.Drops, test.want)
		})
	}
}

// A function that failed before its ends sent to each other has the drops of
// either end.
func TestDropsOfOneEnd(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(small)
	s.Block["home-a"] = evidence.UDP
	s.Socket(evidence.UDP, "alice", 4000).Send(at(sn1, 3478), 50)
	got := s.find()
	if len(got.Drops) != 1 || got.Drops[0].From != "alice" || got.Drops[0].To != "sn1" || got.Drops[0].Rule != "block-udp" {
		t.Errorf("drops %+v", got.Drops)
	}
}

// More drops than a finding holds are counted.
func TestManyDrops(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(small)
	for range 70 {
		s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), 50)
	}
	if got := s.find(); len(got.Drops) != 64 || got.MoreDrops != 6 {
		t.Errorf("%d drops and %d more", len(got.Drops), got.MoreDrops)
	}
}

// The payload's first packet at the callee is told from what comes before it.
func TestTimes(t *testing.T) {
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.0005 {
			t.Errorf("%s after %.6f s, want %.6f", what, got, want)
		}
	}
	s := newScene(t, none, none).begin(small)
	alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5000)
	alice.Send(at(homeB, 5000), 50)
	bob.Send(at(homeA, 4000), 50)
	asked := s.Now.Sub(s.exchange.Since)
	alice.Send(at(homeB, 5000), small)
	got := s.find()
	if got.Times == nil {
		t.Fatal("no times")
	}
	near("first path", got.Times.First, asked.Seconds())
	near("best path", got.Times.Best, asked.Seconds())

	// Over TCP, after a handshake of its own within the stream.
	s = newScene(t, apdf, none)
	s.Connect("bob", 5000, at(sn1, 443))
	s.begin(payload)
	c := s.Connect("alice", 7002, at(homeB, 5000))
	c.Send("alice", 1200)
	asked = s.Now.Sub(s.exchange.Since)
	c.Send("alice", payload)
	if got = s.find(); got.Times == nil {
		t.Fatal("no times over TCP")
	}
	near("first path over TCP", got.Times.First, asked.Seconds())

	s = newScene(t, apdf, apdf).begin(small)
	s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
	if got = s.find(); got.Times != nil {
		t.Errorf("%+v, and nothing got through", got.Times)
	}
}

// Media that comes through a relay at first, and then straight.
func TestTimesOfMedia(t *testing.T) {
	const packet, count = 67, 100
	s := newScene(t, none, none)
	s.begin(packet * count)
	s.exchange.BothWays = true
	alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5000)
	relay := s.Socket(evidence.UDP, "sn2", 3478)
	_, b := bob.Send(netip.AddrPortFrom(netip.MustParseAddr(sn2), 3478), 20)
	alice.Send(at(homeB, 5000), 30) // a check, no media
	alice.Send(at(sn2, 3478), packet)
	first := s.Now.Sub(s.exchange.Since)
	relay.Send(b, packet)
	best := s.Now.Sub(s.exchange.Since)
	for range count {
		alice.Send(at(homeB, 5000), packet)
		bob.Send(at(homeA, 4000), packet)
	}
	got := s.find()
	if got.Inconclusive != "" || got.Times == nil {
		t.Fatalf("%+v", got)
	}
	if d := got.Times.First - first.Seconds(); d < 0 || d > 0.0005 {
		t.Errorf("first path after %.6f s, want %.6f", got.Times.First, first.Seconds())
	}
	if d := got.Times.Best - best.Seconds(); d < 0 || d > 0.0005 {
		t.Errorf("best path after %.6f s, want %.6f", got.Times.Best, best.Seconds())
	}
}
