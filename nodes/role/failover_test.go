package role

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/membership"
)

// TestCarryingRelayDies checks claim C5: the call goes on over the next relay.
func TestCarryingRelayDies(t *testing.T) {
	for name, restrict := range map[string]func(...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool{
		"media over udp": deaf, "media over tcp": blockUDPAndRestrict,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOverlay(t, 12, "alice", "bob")
				defer o.close()
				o.net.SetFilter(restrict(o.nodes["alice"].addr, o.nodes["bob"].addr))
				o.logins("alice", "bob")
				call, err := o.dial("alice", "bob")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				for range 2 { // the carrying relay dies, and then the next
					id, err := hex.DecodeString(call.Call)
					if err != nil {
						t.Fatal(err)
					}
					c, ok := o.client("alice").held.get().call.Find(directory.Session(id))
					if !ok {
						t.Fatal("the call is over")
					}
					dead := c.Media().Legs[0].To
					if err := o.nodes[dead].Close(); err != nil {
						t.Error(err)
					}
					before := c.Stats().Received
					time.Sleep(5 * time.Second)
					got := c.Media()
					if got.Path != "relayed" || got.Legs[0].To == dead {
						t.Fatalf("after %s died media goes %+v", dead, got)
					}
					if n := c.Stats().Received - before; n < 3*70 {
						t.Errorf("%d packets came in the 5 s after %s died, want at least those of 3 s", n, dead)
					}
				}
				r := new(control.HangupResult)
				o.must("alice", control.MethodHangup, control.HangupParams{Call: call.Call}, r)
				if r.Media.Relays != 2 {
					t.Errorf("%d relays are held after two of four died", r.Media.Relays)
				}
			})
		})
	}
}

// TestAllTCPBlocked is P-C4: both are logged in, then the caller's box lets
// nothing through any more.
func TestAllTCPBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice", "bob")
		defer o.close()
		o.logins("alice", "bob")
		alice := o.nodes["alice"].addr
		o.net.SetFilter(func(_ string, from, to netip.AddrPort) bool { return from.Addr() != alice && to.Addr() != alice })
		start := time.Now()
		_, err := o.dial("alice", "bob")
		if err == nil || !strings.Contains(err.Error(), "no supernode answers") {
			t.Errorf("a call without any TCP: %v", err)
		}
		if took := time.Since(start); took > 3500*time.Millisecond {
			t.Errorf("it failed after %v", took)
		}
		t.Log(err)
	})
}

func TestFunctionsTowardsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice", "bob")
		defer o.close()
		if _, err := o.search("alice", "bob"); err == nil || !strings.Contains(err.Error(), "logged in") {
			t.Errorf("a search before login: %v", err)
		}
		o.logins("alice")
		for _, callee := range []string{"bob", "nobody", "alice", "not a name"} {
			if _, err := o.search("alice", callee); err == nil {
				t.Errorf("a search for %q succeeds", callee)
			}
			if _, err := o.dial("alice", callee); err == nil {
				t.Errorf("a call to %q succeeds", callee)
			}
		}
		if err := o.call("alice", control.MethodHangup, control.HangupParams{Call: "00"}, nil); err == nil {
			t.Error("a call that is none is hung up")
		}
	})
}

// TestCalleeDies checks that a call whose other end is gone ends with a reason.
func TestCalleeDies(t *testing.T) {
	for name, restrict := range map[string]func(...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool{
		"direct": nil, "relayed": deaf,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOverlay(t, 12, "alice", "bob")
				defer o.close()
				if restrict != nil {
					o.net.SetFilter(restrict(o.nodes["alice"].addr, o.nodes["bob"].addr))
				}
				o.logins("alice", "bob")
				call, err := o.dial("alice", "bob")
				if err != nil {
					t.Fatal(err)
				}
				o.net.SetFilter(func(_ string, from, to netip.AddrPort) bool { // without a word
					bob := o.nodes["bob"].addr
					return from.Addr() != bob && to.Addr() != bob
				})
				time.Sleep(time.Minute)
				err = o.call("alice", control.MethodHangup, control.HangupParams{Call: call.Call}, nil)
				if err == nil || !strings.Contains(err.Error(), "signalling lost") {
					t.Errorf("hang up a minute after bob vanished: %v", err)
				}
			})
		})
	}
}

// TestDeadRelayIsPassedOver has the relay that was chosen first be out of the
// callee's reach.
func TestDeadRelayIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice", "bob")
		defer o.close()
		alice, bob := o.nodes["alice"].addr, o.nodes["bob"].addr
		restricted := deaf(alice, bob)
		o.net.SetFilter(restricted)
		o.logins("alice", "bob")
		// The first relay is the one that alice connects to first; from then
		// on nothing passes between it and bob.
		known := map[netip.Addr]bool{}
		armed, first := make(chan bool, 1), netip.Addr{}
		armed <- true
		for _, name := range o.names {
			if sn, ok := o.nodes[name].Node.(*supernode); ok && sn.sessions.of("alice") == nil && sn.sessions.of("bob") == nil {
				known[o.nodes[name].addr] = true
			}
		}
		o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
			lock := <-armed
			defer func() { armed <- lock }()
			if transport == "tcp" && from.Addr() == alice && known[to.Addr()] && !first.IsValid() {
				first = to.Addr()
			}
			if first.IsValid() && (from.Addr() == bob && to.Addr() == first || from.Addr() == first && to.Addr() == bob) {
				return false
			}
			return restricted(transport, from, to)
		})
		call, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		if call.Media.Path != "relayed" || call.Media.Relays < 3 || o.nodes[call.Media.Legs[0].To].addr == first {
			t.Errorf("media %+v, signalling %+v, out of reach %v", call.Media, call.Signalling, first)
		}
		time.Sleep(3 * time.Second)
		r := new(control.HangupResult)
		o.must("alice", control.MethodHangup, control.HangupParams{Call: call.Call}, r)
		// Media has flowed since before it was settled that one relay is dead.
		if r.Sent < 3*70 || r.Received < 3*70 {
			t.Errorf("sent %d, received %d", r.Sent, r.Received)
		}
	})
}

// TestBaset2004 checks the profile without hole punching (papers.md §2.4).
func TestBaset2004(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlayOf(t, "baset2004", 16, "alice", "bob")
		defer o.close()
		o.net.SetFilter(portRestricted(o.nodes["alice"].addr, o.nodes["bob"].addr))
		o.logins("alice", "bob")
		path, err := o.search("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		if path.Path != "relayed" {
			t.Errorf("search %+v", path)
		}
		call, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		if call.Media.Path != "relayed" || call.Media.Legs[0].Transport != "udp" || call.Signalling.Path != "relayed" {
			t.Errorf("media %+v, signalling %+v", call.Media, call.Signalling)
		}
		time.Sleep(3 * time.Second)
		o.hangup("alice", call, 3*time.Second)
	})
}

// TestUDPBlockedSinceLogin has both boxes block UDP only after login, when the
// clients believe in it.
func TestUDPBlockedSinceLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice", "bob")
		defer o.close()
		alice, bob := o.nodes["alice"].addr, o.nodes["bob"].addr
		box := portRestricted(alice, bob)
		o.net.SetFilter(box)
		o.logins("alice", "bob")
		o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
			return transport == "tcp" && box(transport, from, to)
		})
		path, err := o.search("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		if path.Path != "relayed" || path.Relays != 2 {
			t.Errorf("search %+v", path)
		}
		call, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		if call.Media.Path != "relayed" || call.Media.Legs[0].Transport != "tcp" || call.Media.Legs[1].Transport != "tcp" {
			t.Errorf("media %+v", call.Media)
		}
		time.Sleep(3 * time.Second)
		o.hangup("alice", call, 3*time.Second)
	})
}

// TestRecordsAreWithTheResponsible checks that a user's record is kept by the
// three supernodes that rendezvous hashing gives, and by no other.
func TestRecordsAreWithTheResponsible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice")
		defer o.close()
		o.logins("alice")
		for _, name := range o.names {
			n, ok := o.nodes[name].Node.(*supernode)
			if !ok {
				continue
			}
			want := membership.Contains(membership.Responsible(n.members.Supernodes(), "alice", 3), membership.IDOf(n.cert))
			if got := n.directory.Load().Knows("alice"); got != want {
				t.Errorf("%s has the record of alice: %v, want %v", name, got, want)
			}
		}
	})
}
