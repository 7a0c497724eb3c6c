package call

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
)

// end is one end of the checks.
type end struct {
	socket  *datagram.Socket
	offer   offer
	checker *checker
	found   chan pair
}

func newEnd(t *testing.T, net *memory.Internet, addr string, public bool) *end {
	t.Helper()
	p, err := profile.Named(profile.NEC2006)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	e := &end{found: make(chan pair, 8)}
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), 4000)
	host := net.Host(addr, at.Addr())
	if e.socket, err = datagram.Listen(context.Background(), host, at, datagram.Config{Keys: keys, Profile: p}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.socket.Close() })
	e.offer = offer{UDP: true, Public: public, External: at, Candidates: []netip.AddrPort{at}, User: rand.Text(), Password: rand.Text()}
	return e
}

// listen has an end answer the other's requests.
func (e *end) listen(t *testing.T) {
	e.checker = newChecker(e.socket, e.offer, func(netip.AddrPort) {}, func(p pair) {
		if !p.tentative {
			e.found <- p
		}
	})
	t.Cleanup(e.checker.close)
}

// result is the first pair that an end found, the zero value for none.
func (e *end) result() pair {
	select {
	case p := <-e.found:
		return p
	default:
		return pair{}
	}
}

const checkInterval = 20 * time.Millisecond

// checkBoth runs the checks of both ends at once and returns what each found.
func checkBoth(t *testing.T, a, b *end) (byA, byB netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
	defer cancel()
	a.listen(t)
	b.listen(t)
	a.checker.begin(b.offer)
	b.checker.begin(a.offer)
	done := make(chan error, 1)
	go func() { done <- b.checker.run(ctx, checkInterval) }()
	errA, errB := a.checker.run(ctx, checkInterval), <-done
	byA, byB = a.result().to, b.result().to
	if (errA == nil) != byA.IsValid() || (errB == nil) != byB.IsValid() {
		t.Errorf("found %v and %v, with errors %v and %v", byA, byB, errA, errB)
	}
	return byA, byB
}

func TestChecksFindThePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.Latency(10 * time.Millisecond))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		start := time.Now()
		byA, byB := checkBoth(t, a, b)
		if byA != b.socket.LocalAddr() || byB != a.socket.LocalAddr() {
			t.Errorf("found %v and %v", byA, byB)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("it took %v with a round trip of 20 ms", took)
		}
	})
}

// TestChecksLearnAnAddress has one end offer an address that leads nowhere:
// the other learns the right one from its requests (peer-reflexive).
func TestChecksLearnAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.Latency(10 * time.Millisecond))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", false)
		b.offer.Candidates = []netip.AddrPort{netip.MustParseAddrPort("198.18.0.9:9")}
		byA, byB := checkBoth(t, a, b)
		if byA != b.socket.LocalAddr() || byB != a.socket.LocalAddr() {
			t.Errorf("found %v and %v", byA, byB)
		}
	})
}

func TestChecksNeedThePassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.Latency(10 * time.Millisecond))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		a.listen(t)
		b.listen(t)
		wrong := a.offer
		wrong.Password = "guessed"
		b.checker.begin(wrong)
		ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
		defer cancel()
		if err := b.checker.run(ctx, checkInterval); err == nil {
			t.Errorf("found %v with a wrong password", b.result())
		}
	})
}

func TestChecksEndWithoutAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.WithFilter(func(transport string, from, _ netip.AddrPort) bool {
			return from.Addr() != netip.MustParseAddr("198.18.0.2") // one direction is no path
		}))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		if byA, byB := checkBoth(t, a, b); byA.IsValid() || byB.IsValid() {
			t.Errorf("found %v and %v", byA, byB)
		}
	})
}

func TestPrivateCandidatesStayAtHome(t *testing.T) {
	private, public := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("198.18.0.2:4000")
	theirs := offer{UDP: true, External: public, Candidates: []netip.AddrPort{public, private}}
	synctest.Test(t, func(t *testing.T) {
		net := memory.New()
		for external, want := range map[string]int{"198.18.0.2:5000": 2, "198.18.0.3:5000": 1} {
			e := newEnd(t, net, "198.18.0.9", true)
			e.offer.External = netip.MustParseAddrPort(external)
			e.listen(t)
			e.checker.begin(theirs)
			if got := len(e.checker.checks); got != want {
				t.Errorf("from behind %s: %d candidates, want %d", external, got, want)
			}
			e.socket.Close()
		}
	})
}

// TestPredictedPortsComeFirst checks the order in which a box is asked for
// mappings: the ports that the other end foretold, and not the one that it had
// for a supernode.
func TestPredictedPortsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(port uint16) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), port)
		}
		e := newEnd(t, memory.New(), "198.18.0.9", true)
		e.listen(t)
		e.checker.begin(offer{UDP: true, External: at(30), Candidates: []netip.AddrPort{at(30), at(40)},
			Predicted: []netip.AddrPort{at(31), at(32)}})
		var got []netip.AddrPort
		for _, k := range e.checker.checks {
			got = append(got, k.to)
		}
		if want := []netip.AddrPort{at(31), at(32), at(40)}; !slices.Equal(got, want) {
			t.Errorf("checks %v, want %v", got, want)
		}
	})
}

func TestHopeless(t *testing.T) {
	const ei, ad, apd = "endpoint-independent", "address-dependent", "address-and-port-dependent"
	box := func(external, mapping, filtering string, predicted ...netip.AddrPort) offer {
		return offer{External: netip.MustParseAddrPort(external), Mapping: mapping, Filtering: filtering, Predicted: predicted}
	}
	next := netip.MustParseAddrPort("198.18.0.1:5")
	for name, c := range map[string]struct {
		a, b offer
		want bool
	}{
		"P x P":           {box("198.18.0.1:1", ei, apd), box("198.18.0.2:1", ei, apd), false},
		"R x S":           {box("198.18.0.1:1", ei, ad), box("198.18.0.2:1", apd, apd), false},
		"P x S":           {box("198.18.0.1:1", ei, apd), box("198.18.0.2:1", apd, apd), true},
		"S x S":           {box("198.18.0.1:1", apd, apd), box("198.18.0.2:1", apd, apd), true},
		"P x Sp":          {box("198.18.0.1:1", ei, apd), box("198.18.0.2:1", apd, apd, next), false},
		"S x Sp":          {box("198.18.0.1:1", apd, apd), box("198.18.0.2:1", apd, apd, next), true},
		"S x S, one box":  {box("198.18.0.1:1", apd, apd), box("198.18.0.1:2", apd, apd), false},
		"S x F":           {box("198.18.0.1:1", apd, apd), box("198.18.0.2:1", ei, ei), false},
		"unknown x known": {box("198.18.0.1:1", "", ""), box("198.18.0.2:1", apd, apd), false},
	} {
		if got := hopeless(c.a, c.b); got != c.want {
			t.Errorf("%s: hopeless %v, want %v", name, got, c.want)
		}
		if got := hopeless(c.b, c.a); got != c.want {
			t.Errorf("%s, the other way round: hopeless %v, want %v", name, got, c.want)
		}
	}
}
