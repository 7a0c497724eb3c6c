package call

import (
	"context"
	"net/netip"
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
	host   network.Network
	socket *datagram.Socket
	offer  offer
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
	e := &end{host: net.Host(addr, netip.MustParseAddr(addr))}
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), 4000)
	if e.socket, err = datagram.Listen(context.Background(), e.host, at, datagram.Config{Keys: keys, Profile: p}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.socket.Close() })
	e.offer = newOffer(e.socket, e.host, directReach{udp: true, public: public, external: at})
	return e
}

// check runs the checks of both ends at once and returns what each found.
func check(t *testing.T, a, b *end) (byA, byB netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
	defer cancel()
	done := make(chan netip.AddrPort, 1)
	ca := newChecker(a.socket, a.offer, b.offer, 20*time.Millisecond)
	cb := newChecker(b.socket, b.offer, a.offer, 20*time.Millisecond)
	defer ca.begin()()
	defer cb.begin()()
	go func() {
		found, _ := cb.run(ctx)
		done <- found
	}()
	byA, _ = ca.run(ctx)
	return byA, <-done
}

func TestChecksFindThePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.Latency(10 * time.Millisecond))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		start := time.Now()
		byA, byB := check(t, a, b)
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
		byA, byB := check(t, a, b)
		if byA != b.socket.LocalAddr() || byB != a.socket.LocalAddr() {
			t.Errorf("found %v and %v", byA, byB)
		}
	})
}

func TestChecksNeedThePassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.Latency(10 * time.Millisecond))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		wrong := *a
		wrong.offer.Password = "guessed"
		ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
		defer cancel()
		defer newChecker(a.socket, a.offer, b.offer, 20*time.Millisecond).begin()()
		if found, err := newChecker(b.socket, b.offer, wrong.offer, 20*time.Millisecond).run(ctx); err == nil {
			t.Errorf("found %v with a wrong password", found)
		}
	})
}

func TestChecksEndWithoutAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.New(memory.WithFilter(func(transport string, from, _ netip.AddrPort) bool {
			return from.Addr() != netip.MustParseAddr("198.18.0.2") // one direction is no path
		}))
		a, b := newEnd(t, net, "198.18.0.1", true), newEnd(t, net, "198.18.0.2", true)
		if byA, byB := check(t, a, b); byA.IsValid() || byB.IsValid() {
			t.Errorf("found %v and %v", byA, byB)
		}
	})
}

func TestPrivateCandidatesStayAtHome(t *testing.T) {
	private, public := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("198.18.0.2:4000")
	theirs := offer{UDP: true, External: public, Candidates: []netip.AddrPort{public, private}}
	for external, want := range map[string]int{"198.18.0.2:5000": 2, "198.18.0.3:5000": 1} {
		mine := offer{UDP: true, External: netip.MustParseAddrPort(external)}
		if c := newChecker(nil, mine, theirs, time.Second); len(c.candidates) != want {
			t.Errorf("from behind %s: candidates %v", external, c.candidates)
		}
	}
}
