package role

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
)

// firewalls are boxes around single hosts that let in UDP only from where the
// host has sent to (RFC 4787 §5, address- and port-dependent), whichever of the
// host's addresses is used.
type firewalls struct {
	mu     sync.Mutex
	around map[netip.Addr]bool
	sent   map[[2]netip.AddrPort]bool
}

func (f *firewalls) filter(transport string, from, to netip.AddrPort) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if transport != "udp" {
		return true
	}
	f.sent[[2]netip.AddrPort{from, to}] = true
	return !f.around[to.Addr()] || f.sent[[2]netip.AddrPort{to, from}]
}

func (f *firewalls) surround(hosts ...netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, host := range hosts {
		f.around[host] = true
	}
}

// routed is a host with a router between it and everything else.
type routed struct{ network.Network }

func (routed) OnLink(netip.Addr) bool { return false }

// TestFreeWithinOneBox has two clients behind one NAT search and call each other,
// with a firewall around none, one or both: who is free, they find out of each other.
func TestFreeWithinOneBox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		walls := &firewalls{around: map[netip.Addr]bool{}, sent: map[[2]netip.AddrPort]bool{}}
		home := box("P", "198.18.9.1")
		o := &overlay{t: t, net: memory.New(memory.Latency(5*time.Millisecond), memory.WithFilter(walls.filter)),
			boxes: map[string]*memory.NAT{"open-a": home, "open-b": home, "walled-a": home, "walled-b": home},
			wrap:  func(nw network.Network) network.Network { return routed{nw} }}
		names := []string{"open-a", "open-b", "walled-a", "walled-b"}
		o.build("nec2006", 12, names...)
		defer o.close()
		walls.surround(o.nodes["walled-a"].addr, o.nodes["walled-b"].addr)
		o.logins(names...)
		for _, c := range []struct{ caller, callee, want, wantSearch string }{
			{"open-a", "open-b", "direct", "punched"}, // around, the NAT itself filters
			{"walled-a", "open-a", "direct", "punched"},
			{"open-b", "walled-b", "reversed", "punched"},
			{"walled-a", "walled-b", "punched", "punched"},
		} {
			if p, err := o.search(c.caller, c.callee); err != nil || p.Path != c.wantSearch {
				t.Errorf("%s searches %s: %v, %v, want %s", c.caller, c.callee, p, err, c.wantSearch)
			}
			r, err := o.dial(c.caller, c.callee)
			if err != nil {
				t.Errorf("%s calls %s: %v", c.caller, c.callee, err)
				continue
			}
			time.Sleep(time.Second) // the callee may know later
			if callee := o.callOf(c.callee, r).Media(); r.Media.Path != c.want || callee.Path != c.want {
				t.Errorf("%s calls %s: they say %s and %s, want %s", c.caller, c.callee, r.Media.Path, callee.Path, c.want)
			}
			o.must(c.caller, control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
		}
	})
}
