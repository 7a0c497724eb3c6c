package role

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gauntlet/nodes/control"
)

// logins logs clients in.
func (o *overlay) logins(names ...string) {
	o.t.Helper()
	for _, name := range names {
		if _, err := o.login(name); err != nil {
			o.t.Fatalf("login of %s: %v", name, err)
		}
	}
}

// search has one client search for another, with a greeting of 40 KiB.
func (o *overlay) search(caller, callee string) (*control.Path, error) {
	r := new(control.PeerResult)
	err := o.call(caller, control.MethodSearch, control.PeerParams{Callee: callee,
		Payload: bytes.Repeat([]byte{3}, 40<<10)}, r)
	return r.Path, err
}

func (o *overlay) dial(caller, callee string) (*control.CallResult, error) {
	r := new(control.CallResult)
	err := o.call(caller, control.MethodCall, control.PeerParams{Callee: callee,
		Payload: bytes.Repeat([]byte{4}, 40<<10)}, r)
	return r, err
}

// hangup ends a call and checks that it carried the load for so long.
func (o *overlay) hangup(caller string, call *control.CallResult, lasted time.Duration) *control.HangupResult {
	o.t.Helper()
	r := new(control.HangupResult)
	o.must(caller, control.MethodHangup, control.HangupParams{Call: call.Call}, r)
	want := int(lasted.Seconds() * 70)
	for what, n := range map[string]int{"sent": r.Sent, "received": r.Received} {
		if n < want-3 || n > want+want/20+15 {
			o.t.Errorf("%s %d packets in %v, want about %d", what, n, lasted, want)
		}
	}
	return r
}

// portRestricted filters what comes in to each of these hosts as a stateful
// firewall with address- and port-dependent filtering does.
func portRestricted(hosts ...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
	return filtered(func(a netip.AddrPort) netip.AddrPort { return a }, hosts...)
}

// deaf is portRestricted for hosts that each see the other at an address from
// which it never sends, as two symmetric NATs would have it: what one sends to
// the other gets nowhere.
func deaf(hosts ...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
	f := portRestricted(hosts...)
	return func(transport string, from, to netip.AddrPort) bool {
		passes := f(transport, from, to)
		if transport != "udp" {
			return passes
		}
		both := 0
		for _, h := range hosts {
			if from.Addr() == h || to.Addr() == h {
				both++
			}
		}
		return passes && both < 2
	}
}

type flow struct {
	transport string
	in, out   netip.AddrPort
}

func filtered(project func(netip.AddrPort) netip.AddrPort, hosts ...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
	opened := make(chan map[flow]bool, 1) // a lock that a bubble understands
	opened <- map[flow]bool{}
	inside := func(a netip.AddrPort) bool {
		for _, h := range hosts {
			if a.Addr() == h {
				return true
			}
		}
		return false
	}
	return func(transport string, from, to netip.AddrPort) bool {
		flows := <-opened
		defer func() { opened <- flows }()
		passes := !inside(to) || flows[flow{transport, to, project(from)}]
		if inside(from) { // what the far side then does with it is its own matter
			flows[flow{transport, from, project(to)}] = true
		}
		return passes
	}
}

func TestSearch(t *testing.T) {
	for _, c := range []struct {
		name   string
		filter func(a, b netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool
		want   control.Path
		legs   int
		udp    bool
	}{
		{name: "public", filter: nil, want: control.Path{Path: "direct"}, legs: 1, udp: true},
		{name: "callee restricted", want: control.Path{Path: "reversed"}, legs: 1, udp: true,
			filter: func(_, b netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool { return portRestricted(b) }},
		{name: "both restricted", want: control.Path{Path: "punched", Relays: 2}, legs: 1, udp: true,
			filter: func(a, b netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool { return portRestricted(a, b) }},
		{name: "both symmetric", want: control.Path{Path: "relayed", Relays: 2, Carrying: 1, Hops: 1}, legs: 2,
			filter: func(a, b netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool { return deaf(a, b) }},
		{name: "udp blocked", want: control.Path{Path: "relayed", Relays: 2, Carrying: 1, Hops: 1}, legs: 2,
			filter: func(a, b netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
				return blockUDPAndRestrict(a, b)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOverlay(t, 12, "alice", "bob")
				defer o.close()
				if c.filter != nil {
					o.net.SetFilter(c.filter(o.nodes["alice"].addr, o.nodes["bob"].addr))
				}
				o.logins("alice", "bob")
				start := time.Now()
				got, err := o.search("alice", "bob")
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
				if len(got.Legs) != c.legs || (got.Legs[0].Transport == "udp") != c.udp {
					t.Errorf("legs %+v", got.Legs)
				}
				got.Legs = nil
				if d := cmp.Diff(&c.want, got); d != "" {
					t.Errorf("path (-want +got):\n%s", d)
				}
				if !strings.Contains(o.log.String(), "user accepted") {
					t.Error("bob accepted nobody")
				}
			})
		})
	}
}

// blockUDPAndRestrict is a firewall that stops all UDP, and all TCP inwards.
func blockUDPAndRestrict(hosts ...netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
	tcp := portRestricted(hosts...)
	return func(transport string, from, to netip.AddrPort) bool {
		passes := tcp(transport, from, to)
		for _, h := range hosts {
			if transport == "udp" && (from.Addr() == h || to.Addr() == h) {
				return false
			}
		}
		return passes
	}
}

func TestCall(t *testing.T) {
	type filter = func(string, netip.AddrPort, netip.AddrPort) bool
	for _, c := range []struct {
		name       string
		filter     func(a, b netip.Addr) filter
		signalling control.Path
		media      control.Path
		transport  string // of media
	}{
		{name: "direct",
			signalling: control.Path{Path: "direct"}, media: control.Path{Path: "direct"}, transport: "udp"},
		{name: "both restricted", filter: func(a, b netip.Addr) filter { return portRestricted(a, b) },
			signalling: control.Path{Path: "relayed", Hops: 1, Relays: 4, Carrying: 1},
			media:      control.Path{Path: "punched", Relays: 4}, transport: "udp"},
		{name: "caller public", filter: func(_, b netip.Addr) filter { return portRestricted(b) },
			signalling: control.Path{Path: "reversed"}, media: control.Path{Path: "reversed"}, transport: "udp"},
		{name: "both symmetric", filter: func(a, b netip.Addr) filter { return deaf(a, b) },
			signalling: control.Path{Path: "relayed", Hops: 1, Relays: 4, Carrying: 1},
			media:      control.Path{Path: "relayed", Hops: 1, Relays: 4, Carrying: 1}, transport: "udp"},
		{name: "udp blocked", filter: func(a, b netip.Addr) filter { return blockUDPAndRestrict(a, b) },
			signalling: control.Path{Path: "relayed", Hops: 1, Relays: 4, Carrying: 1},
			media:      control.Path{Path: "relayed", Hops: 1, Relays: 4, Carrying: 1}, transport: "tcp"},
		{name: "udp blocked at the caller alone", filter: func(a, _ netip.Addr) filter { return blockUDPAndRestrict(a) },
			signalling: control.Path{Path: "direct"}, media: control.Path{Path: "direct"}, transport: "tcp"},
		{name: "udp blocked at the callee alone", filter: func(_, b netip.Addr) filter { return blockUDPAndRestrict(b) },
			signalling: control.Path{Path: "reversed"}, media: control.Path{Path: "reversed"}, transport: "tcp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOverlay(t, 12, "alice", "bob")
				defer o.close()
				if c.filter != nil {
					o.net.SetFilter(c.filter(o.nodes["alice"].addr, o.nodes["bob"].addr))
				}
				o.logins("alice", "bob")
				start := time.Now()
				call, err := o.dial("alice", "bob")
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 2500*time.Millisecond {
					t.Errorf("set up in %v", took)
				}
				callee := o.callOf("bob", call)
				time.Sleep(10 * time.Second)
				end := o.hangup("alice", call, 10*time.Second)
				<-callee.Over()
				if past, ok := o.client("bob").held.get().call.Past(callee.ID()); !ok || past.Reason == nil || past.Reason.Error() != "hung up" {
					t.Errorf("bob's end is over because of %v", past.Reason)
				}
				if end.Received < end.Sent-3 {
					t.Errorf("sent %d, received %d", end.Sent, end.Received)
				}
				if got := call.Media.Legs[0].Transport; got != c.transport {
					t.Errorf("media over %s, want %s", got, c.transport)
				}
				for _, path := range []*control.Path{call.Media, call.Signalling} {
					// Legs lead from caller to callee, whoever opened the connection.
					if first, last := path.Legs[0], path.Legs[len(path.Legs)-1]; first.From != "alice" || last.To != "bob" {
						t.Errorf("legs %+v", path.Legs)
					}
				}
				call.Media.Legs, call.Signalling.Legs = nil, nil
				if d := cmp.Diff(&c.signalling, call.Signalling); d != "" {
					t.Errorf("signalling (-want +got):\n%s", d)
				}
				if d := cmp.Diff(&c.media, call.Media); d != "" {
					t.Errorf("media (-want +got):\n%s", d)
				}
			})
		})
	}
}
