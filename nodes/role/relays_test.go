package role

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/call"
	"gauntlet/nodes/control"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/relay"
)

// gaps watches what two ends receive for a while and returns the longest time
// during which one of them received nothing.
func gaps(lasting time.Duration, ends ...*call.Call) time.Duration {
	const look = 5 * time.Millisecond
	longest := time.Duration(0)
	last, since := make([]int, len(ends)), make([]time.Duration, len(ends))
	for at := time.Duration(0); at < lasting; at += look {
		for i, end := range ends {
			if n := end.Stats().Received; n != last[i] {
				last[i], since[i] = n, at
			}
			longest = max(longest, at-since[i])
		}
		time.Sleep(look)
	}
	return longest
}

// onSameRelay checks that both ends send over one relay that is not dead, and
// returns it.
func (o *overlay) onSameRelay(dead string, ends ...*call.Call) string {
	o.t.Helper()
	relays := map[string]bool{}
	for _, end := range ends {
		path := end.Media()
		if path.Path != "relayed" || path.Legs[0].To == dead {
			o.t.Errorf("media %+v after %s failed", path, dead)
			continue
		}
		relays[path.Legs[0].To] = true
	}
	if len(relays) != 1 {
		o.t.Errorf("the ends send over %v", relays)
	}
	for name := range relays {
		return name
	}
	return ""
}

// filter is what passes in the internet in memory.
type filter = func(transport string, from, to netip.AddrPort) bool

// TestCarryingRelayFails has the carrying relay die, stall or lose packets in
// the middle of a call, twice: media goes on over the next one, at both ends the
// same, after a gap of 500 ms at most (C5).
func TestCarryingRelayFails(t *testing.T) {
	for name, c := range map[string]struct {
		base func(...netip.Addr) filter // of the two ends' boxes
		fail func(o *overlay, base filter, dead string)
		loss bool // it fails by losing packets
	}{
		"dies": {base: deaf, fail: func(o *overlay, _ filter, dead string) {
			if err := o.nodes[dead].Close(); err != nil {
				o.t.Error(err)
			}
		}},
		"dies, over TCP": {base: blockUDPAndRestrict, fail: func(o *overlay, _ filter, dead string) {
			if err := o.nodes[dead].Close(); err != nil {
				o.t.Error(err)
			}
		}},
		"stalls":           {base: deaf, fail: stall},
		"stalls, over TCP": {base: blockUDPAndRestrict, fail: stall},
		"loses packets":    {base: deaf, fail: lose, loss: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOverlay(t, 14, "alice", "bob")
				defer o.close()
				base := c.base(o.nodes["alice"].addr, o.nodes["bob"].addr)
				o.net.SetFilter(base)
				o.logins("alice", "bob")
				r, err := o.dial("alice", "bob")
				if err != nil {
					t.Fatal(err)
				}
				alice, bob := o.callOf("alice", r), o.callOf("bob", r)
				dead := ""
				for range 2 {
					time.Sleep(2 * time.Second)
					dead = o.onSameRelay(dead, alice, bob)
					c.fail(o, base, dead)
					gap := gaps(4*time.Second, alice, bob)
					if !c.loss && gap > 500*time.Millisecond {
						t.Errorf("nothing came for %v when %s failed", gap, dead)
					}
					t.Logf("%s failed: gap of %v", dead, gap)
				}
				o.onSameRelay(dead, alice, bob)
				before, at := [2]int{alice.Stats().Received, bob.Stats().Received}, time.Now()
				time.Sleep(3 * time.Second)
				for i, end := range []*call.Call{alice, bob} {
					if n := end.Stats().Received - before[i]; n < 70*3-3 {
						t.Errorf("end %d received %d packets in %v after it all", i, n, time.Since(at))
					}
				}
				o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
			})
		})
	}
}

// TestRelayOfMediaAlone has media leave the relay that carries the signalling, and
// stay on the next for longer than a relay waits for a frame.
func TestRelayOfMediaAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 14, "alice", "bob")
		defer o.close()
		base := deaf(o.nodes["alice"].addr, o.nodes["bob"].addr)
		o.net.SetFilter(base)
		o.logins("alice", "bob")
		r, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		alice, bob := o.callOf("alice", r), o.callOf("bob", r)
		first := o.onSameRelay("", alice, bob)
		lose(o, base, first)
		time.Sleep(4 * time.Second)
		second := o.onSameRelay(first, alice, bob)
		time.Sleep(relay.Default().IdleTimeout + 10*time.Second)
		if now := o.onSameRelay(first, alice, bob); now != second {
			t.Errorf("media went from %s to %s", second, now)
		}
		var end control.HangupResult
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, &end)
		if end.Media.Relays != 4 {
			t.Errorf("%d relays are held at the end, want all 4", end.Media.Relays)
		}
	})
}

// TestRelaysRunOut has one relay of a call die after the other, until the last is
// left: the ends get others before that is gone too.
func TestRelaysRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 20, "alice", "bob")
		defer o.close()
		o.net.SetFilter(deaf(o.nodes["alice"].addr, o.nodes["bob"].addr))
		o.logins("alice", "bob")
		r, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		alice, bob := o.callOf("alice", r), o.callOf("bob", r)
		dead := ""
		for n := range 4 {
			time.Sleep(2 * time.Second)
			if n == 3 {
				time.Sleep(12 * time.Second)
			}
			dead = o.onSameRelay(dead, alice, bob)
			if err := o.nodes[dead].Close(); err != nil {
				t.Error(err)
			}
			if gap := gaps(2*time.Second, alice, bob); gap > 500*time.Millisecond {
				t.Errorf("nothing came for %v when relay %d failed, %s", gap, n+1, dead)
			}
		}
		o.onSameRelay(dead, alice, bob)
		var end control.HangupResult
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, &end)
		if end.Media.Relays != 3 {
			t.Errorf("%d relays are held at the end, want the 3 that came in the place of others", end.Media.Relays)
		}
	})
}

// stall has a relay take everything and pass nothing on.
func stall(o *overlay, base filter, dead string) {
	at := o.nodes[dead].addr
	alice, bob := o.nodes["alice"].addr, o.nodes["bob"].addr
	o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
		return base(transport, from, to) && (from.Addr() != at || to.Addr() != alice && to.Addr() != bob)
	})
}

// lose has a relay lose every other datagram to bob.
func lose(o *overlay, base filter, dead string) {
	at, bob := o.nodes[dead].addr, o.nodes["bob"].addr
	count := make(chan int, 1) // a lock that a bubble understands
	count <- 0
	o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
		if transport == "udp" && from.Addr() == at && to.Addr() == bob {
			n := <-count
			count <- n + 1
			return n%2 == 0
		}
		return base(transport, from, to)
	})
}

// TestMoveLosesNothing has direct datagrams pass only when media has begun over
// a relay: it moves to the punched path, and every packet arrives.
func TestMoveLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := between(t, "P", "P", 5*time.Millisecond, "")
		defer o.close()
		o.logins("alice", "bob")
		alice, bob := o.nodes["alice"].addr, o.nodes["bob"].addr
		first := make(chan time.Time, 1) // when the first check was sent, and a lock
		first <- time.Time{}
		o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
			straight := from.Addr() == alice && to.Addr() == o.boxes["bob"].External ||
				from.Addr() == bob && to.Addr() == o.boxes["alice"].External
			if transport != "udp" || !straight {
				return true
			}
			since := <-first
			if since.IsZero() {
				since = time.Now()
			}
			first <- since
			return time.Since(since) > 600*time.Millisecond
		})
		r, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		a, b := o.callOf("alice", r), o.callOf("bob", r)
		if r.Media.Path != "punched" {
			t.Errorf("media %+v", r.Media)
		}
		time.Sleep(3 * time.Second)
		var end control.HangupResult
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, &end)
		<-b.Over()
		past, ok := o.client("bob").held.get().call.Past(b.ID())
		if !ok {
			t.Fatal("bob knows nothing of the call")
		}
		if end.Sent != past.Received || past.Sent != end.Received || end.Sent < 3*70 {
			t.Errorf("alice sent %d, of which bob received %d; bob sent %d, of which alice received %d",
				end.Sent, past.Received, past.Sent, end.Received)
		}
		if a.Relayed() == 0 || b.Relayed() == 0 {
			t.Errorf("%d and %d packets came over a relay at first, want some", a.Relayed(), b.Relayed())
		}
	})
}

// TestRefusedByRelays has some relays refuse sessions, politely: others are
// taken in their place.
func TestRefusedByRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 20, "alice", "bob")
		defer o.close()
		o.net.SetFilter(deaf(o.nodes["alice"].addr, o.nodes["bob"].addr))
		o.logins("alice", "bob")
		full := relay.Default()
		full.MaxSessions = 0
		refusing := map[string]bool{}
		for _, name := range o.names {
			sn, ok := o.nodes[name].Node.(*supernode)
			if !ok || len(refusing) == 3 || sn.sessions.of("alice") != nil || sn.sessions.of("bob") != nil ||
				sn.directory.Load().Knows("alice") || sn.directory.Load().Knows("bob") {
				continue // never chosen; and no more than there are rounds of choosing others
			}
			refusing[name] = true
			sn.relay.Store(relay.NewServer(full, sn.udp))
		}
		refused := func() bool { return strings.Contains(o.log.String(), "relay has 0 sessions already") }
		for calls := 0; calls < 30 && !refused(); calls++ {
			r, err := o.dial("alice", "bob")
			if err != nil {
				t.Fatal(err)
			}
			if r.Media.Path != "relayed" || r.Media.Relays != 4 {
				t.Errorf("media %+v", r.Media)
			}
			if refusing[r.Media.Legs[0].To] {
				t.Errorf("media goes over %s, which refused", r.Media.Legs[0].To)
			}
			o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
			time.Sleep(5 * time.Second) // the supernode's limit on introductions
		}
		if !refused() {
			t.Error("none of three in at least ten was chosen in 30 calls")
		}
	})
}

func TestSettings(t *testing.T) {
	config := relay.Default()
	var s supernodeSettings
	if err := readSettings([]byte(`{"relay_sessions": 3, "relay_rate": 4000}`), &s); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(&config); err != nil || config.MaxSessions != 3 || config.MediaRate != 4000 {
		t.Errorf("%+v, %v", config, err)
	}
	for _, wrong := range []string{`{"relay_sessions": -1}`, `{"relay_rate": 0}`, `{"relay_session": 3}`, `[]`, `{"relay_rate": "x"}`} {
		var s supernodeSettings
		err := readSettings([]byte(wrong), &s)
		if err == nil {
			err = s.apply(&config)
		}
		if err == nil || !strings.Contains(err.Error(), "settings") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// A client looks for a direct path for as long as its settings say.
func TestClientSettings(t *testing.T) {
	p, err := profile.Named("")
	if err != nil {
		t.Fatal(err)
	}
	var s clientSettings
	if err := readSettings([]byte(`{"punch_timeout": 2.5}`), &s); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(p); err != nil || p.PunchTimeout != 2500*time.Millisecond {
		t.Errorf("%v, %v", p.PunchTimeout, err)
	}
	for _, wrong := range []string{`{"punch_timeout": 0}`, `{"punch_timeout": -1}`, `{"punch_timeout": 61}`, `{"punch_timeout": "1s"}`} {
		var s clientSettings
		err := readSettings([]byte(wrong), &s)
		if err == nil {
			err = s.apply(p)
		}
		if err == nil || !strings.Contains(err.Error(), "settings") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
