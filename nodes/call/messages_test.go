package call

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/media"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// FuzzNotices has an end take any bytes as the other's notices of legs and
// reports: it holds no more for them than a call has relays.
func FuzzNotices(f *testing.F) {
	for _, message := range []any{legs{List: []leg{{Relay: 3, Transport: relay.UDP}, {Relay: 0, Transport: relay.TCP}}}, legs{List: []leg{{Relay: noRelay}, {Relay: 1 << 40}}},
		report{Relay: 1, Expected: 35, Received: 3}, report{Relay: -7, Expected: -1, Received: 1}} {
		b, err := wire.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &Call{paths: newPaths(), peer: &identity.Certificate{}, changed: make(chan struct{}),
			poke: make(chan struct{}, 1), ended: make(chan struct{})}
		for range 3 {
			c.takeLegs(body)
			c.takeReport(body)
		}
		if len(c.paths.ready) > maxRelays {
			t.Errorf("holds %v", c.paths.ready)
		}
		for i := range c.paths.ready {
			if i < 0 || i >= maxRelays {
				t.Errorf("holds a leg at relay %d", i)
			}
		}
	})
}

// FuzzOffer has an end check any offer: it sends to no more addresses than an
// offer may name.
func FuzzOffer(f *testing.F) {
	at := netip.MustParseAddrPort("198.18.0.2:4000")
	b, err := wire.Marshal(offer{UDP: true, External: at, Candidates: []netip.AddrPort{at}, Predicted: []netip.AddrPort{at},
		User: "u", Password: "p", Listen: at})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = wire.Marshal(offer{UDP: true, External: at, Candidates: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:22"), {}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, body []byte) {
		var theirs offer
		if wire.Unmarshal(body, &theirs) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			e := newEnd(t, memory.New(), "198.18.0.1", true)
			e.listen(t)
			theirs = theirs.usable(e.offer, e.host)
			e.checker.begin(theirs)
			for _, k := range e.checker.checks {
				if !network.Unicast(k.to) {
					t.Errorf("%s is checked", k.to)
				}
			}
			if n := len(e.checker.checks); n > 2*maxCandidates {
				t.Errorf("%d addresses are checked", n)
			}
			hopeless(e.offer, theirs)
			ctx, cancel := context.WithTimeout(t.Context(), 2*checkInterval)
			defer cancel()
			if err := e.checker.run(ctx, checkInterval); err == nil {
				t.Error("a pair works without another end")
			}
		})
	})
}

// TestTakeAllocatesNothing holds the receiver's hot path of a call to no
// allocation a packet.
func TestTakeAllocatesNothing(t *testing.T) {
	var keys media.Keys
	s, err := newStream(keys)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := media.NewSender(keys.Remote)
	if err != nil {
		t.Fatal(err)
	}
	const runs = 1000
	packets := make([][]byte, 0, runs+2)
	for n := range runs + 2 {
		p, err := sender.Packet(make([]byte, media.PayloadSize), uint32(n))
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, append([]byte(nil), p...))
	}
	c := &Call{stream: s, poke: make(chan struct{}, 1)}
	r := &route{relay: 1}
	c.take(r, packets[0])
	next := 1
	if n := testing.AllocsPerRun(runs, func() { c.take(r, packets[next]); next++ }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	if got := r.heard.Load(); got != runs+2 {
		t.Errorf("heard %d packets of %d", got, runs+2)
	}
}

// TestPaths are the rules by which an end chooses its route.
func TestPaths(t *testing.T) {
	p := newPaths()
	p.relayed = true
	relays := []*route{{relay: 0}, {relay: 1}, {relay: 2}}
	for i, r := range relays {
		p.legs[i] = r
	}
	if p.best() != nil {
		t.Error("a relay is used of which the other end has no leg")
	}
	p.ready[0], p.ready[1], p.ready[2] = relay.UDP, relay.UDP, relay.UDP
	if p.use(p.best()); p.current != relays[0] {
		t.Errorf("uses %v at first", p.current)
	}
	relays[0].heard.Add(1)
	p.silent()
	beats := 0
	for !p.silent() {
		beats++
	}
	if took := time.Duration(beats+1) * beat; took != 400*time.Millisecond {
		t.Errorf("silence is noticed after %v", took)
	}
	p.giveUp(p.current)
	if p.use(p.best()); p.current != relays[1] {
		t.Errorf("uses %v after the first", p.current)
	}
	relays[2].heard.Add(1)
	if !p.follow() || p.current != relays[2] {
		t.Errorf("uses %v when the other end is on the third", p.current)
	}
	if p.follow() {
		t.Error("goes back")
	}
	bad := report{Relay: 2, Expected: 35, Received: 20}
	if p.reported(bad) || p.reported(report{Relay: 2, Expected: 35, Received: 33}) || p.reported(bad) || !p.reported(bad) {
		t.Error("two bad reports in a row make a bad relay, and nothing else does")
	}
	if p.giveUp(p.current); p.best() != relays[2] {
		t.Error("the last relay is better than none")
	}
	p.direct = &route{relay: noRelay}
	if p.use(p.best()); p.current != p.direct {
		t.Error("a direct route is better than a relay")
	}
}

// TestFailuresAreBounded has a call fail on its way to media again and again.
func TestFailuresAreBounded(t *testing.T) {
	c := &Call{service: &Service{client: &directory.Client{Log: slog.New(slog.DiscardHandler)}}, peer: &identity.Certificate{},
		paths: newPaths(), changed: make(chan struct{}), poke: make(chan struct{}, 1)}
	for n := range 1000 {
		c.fail(fmt.Errorf("attempt %d", n))
	}
	if len(c.failures) != maxFailures || c.failures[0].Error() != "attempt 0" {
		t.Errorf("%d failures are held, the first: %v", len(c.failures), c.failures[0])
	}
}
