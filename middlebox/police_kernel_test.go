package middlebox

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"gauntlet/topo"
)

// Only what is on the list gets out, whatever the host.
func TestAllow(t *testing.T) {
	b := Behaviour{Filtering: FilterAddressAndPortDependent, Allow: []Service{{Protocol: UDP, Port: 4000}, {Protocol: TCP}}}
	l := newLab(t, b, Behaviour{})
	l.tcp("alice", "s1")
	server := l.udpAt("s1", 4000)
	defer server.Close()
	alice := l.udp("alice")
	l.observe(alice, server)
	l.send(alice, netip.AddrPortFrom(l.addr("s1"), 4001), "not allowed")
	l.untilDropped("a", NotAllowedRule, 1)
	l.send(server, local(alice), "answer")
	if got, _ := l.receive(alice); got != "answer" {
		t.Errorf("alice got %q", got)
	}
	web, _ := Preset("web-only")
	l.load("a", web)
	if c, err := l.dial("alice", netip.AddrPortFrom(l.addr("s1"), 81).String(), 100*time.Millisecond); !silence(err) {
		if err == nil {
			c.Close()
		}
		t.Errorf("TCP to port 81: %v, want silence", err)
	}
	l.untilAtLeast("a", NotAllowedRule, 1)
}

// Beyond its rate an address loses packets.
func TestUDPRate(t *testing.T) {
	b := Behaviour{Filtering: FilterAddressAndPortDependent, UDPRate: 10}
	l := newLab(t, b, Behaviour{})
	alice, server := l.udp("alice"), l.udp("s1")
	l.bursts(alice, server, local(server), 50, b.UDPRate)
}

// bursts sends many packets at once through a, and fails unless no more get
// through than the rate allows, in packets a second, and one that it may save up.
func (l *lab) bursts(from, at *net.UDPConn, to netip.AddrPort, burst uint64, rate int) {
	l.Helper()
	start := time.Now()
	for range burst {
		l.send(from, to, "x")
	}
	got := uint64(0)
	for deadline := start.Add(patience); got+l.dropped("a", UDPRateRule) < burst; {
		if l.hears(at, pace) {
			got++
		}
		if time.Now().After(deadline) {
			l.Fatalf("%d of %d packets came, %d were dropped", got, burst, l.dropped("a", UDPRateRule))
		}
	}
	if allowed := 1 + uint64(time.Since(start).Seconds()*float64(rate)) + 1; got > allowed {
		l.Errorf("%d of %d packets got through, want at most %d", got, burst, allowed)
	}
}

// A TCP connection that was silent for too long is cut off without a word.
func TestTCPIdle(t *testing.T) {
	b := Behaviour{Filtering: FilterAddressAndPortDependent, TCPIdle: time.Second}
	l := newLab(t, b, Behaviour{})
	client, server := l.tcp("alice", "s1")
	exchange(t, client, server, "awake")
	for deadline := time.Now().Add(patience); ; {
		if _, err := client.Write([]byte("still there?")); err != nil {
			t.Fatal(err)
		}
		if l.dropped("a", TCPIdleRule) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an idle connection was never cut off")
		}
		<-time.After(1200 * time.Millisecond) // the silence under test
	}
}

// What turns around in the box counts as what leaves it does.
func TestUDPRateHairpin(t *testing.T) {
	fullCone, _ := Preset("full-cone")
	l := build(t, topo.Description{
		Boxes: []topo.BoxDescription{{Name: "a", Translates: true}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "a"}, {Name: "anna", Behind: "a"}},
	})
	l.load("a", with(fullCone, func(b *Behaviour) { b.Hairpin, b.UDPRate = true, 10 }))
	alice, anna := l.udp("alice"), l.udp("anna")
	l.bursts(alice, anna, l.observe(anna, l.udp("s1")), 200, 10)
}
