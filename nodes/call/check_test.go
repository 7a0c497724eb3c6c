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
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
)

// end is one end of the checks.
type end struct {
	host    network.Network
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
	e.host = net.Host(addr, at.Addr())
	if e.socket, err = datagram.Listen(context.Background(), e.host, at, datagram.Config{Keys: keys, Profile: p}); err != nil {
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

// onLink is a host that has an address on its own network.
type onLink struct {
	network.Network
	addr netip.Addr
}

func (o onLink) OnLink(addr netip.Addr) bool { return addr == o.addr }

// What an offer names is sent to only where it means something: private addresses
// behind the same box, or on the same network, which a box with several external
// addresses may be around; and never what is no other host's.
func TestUsable(t *testing.T) {
	at := netip.MustParseAddrPort
	private, public := at("10.0.0.2:4000"), at("198.18.0.2:4000")
	theirs := offer{UDP: true, External: public, Listen: private, Predicted: []netip.AddrPort{at("127.0.0.1:22"), at("198.18.0.2:4001")},
		Candidates: []netip.AddrPort{public, at("127.0.0.1:22"), private, at("224.0.0.1:9"), {}, at("198.18.0.2:0")}}
	net := memory.New()
	host := net.Host("me", at("198.18.0.9:1").Addr())
	for name, c := range map[string]struct {
		external string
		host     network.Network
		near     bool
	}{
		"behind the same box":             {"198.18.0.2:5000", host, true},
		"elsewhere":                       {"198.18.0.3:5000", host, false},
		"on the same network, seen apart": {"198.18.0.3:5000", onLink{host, private.Addr()}, true},
	} {
		mine := offer{External: at(c.external), Mapping: "address-and-port-dependent"}
		got := theirs.usable(mine, c.host)
		want := []netip.AddrPort{public}
		if c.near {
			want = append(want, private)
		}
		if !slices.Equal(got.Candidates, want) || !slices.Equal(got.Predicted, theirs.Predicted[1:]) || got.Listen.IsValid() != c.near {
			t.Errorf("%s: %v, %v and %v", name, got.Candidates, got.Predicted, got.Listen)
		}
		if got.near(mine) != c.near {
			t.Errorf("%s: near %v", name, got.near(mine))
		}
	}
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
