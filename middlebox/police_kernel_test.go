package middlebox

import (
	"net/netip"
	"testing"
	"time"
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

// Beyond its rate an address loses packets, and another address doesn't.
func TestUDPRate(t *testing.T) {
	b := Behaviour{Filtering: FilterAddressAndPortDependent, UDPRate: 10}
	l := newLab(t, b, Behaviour{})
	alice, server := l.udp("alice"), l.udp("s1")
	const burst = 50
	start := time.Now()
	for range burst {
		l.send(alice, local(server), "x")
	}
	l.untilAtLeast("a", UDPRateRule, 1)
	allowed := uint64(1 + int(time.Since(start).Seconds()*10) + 1)
	if n := l.dropped("a", UDPRateRule); n < burst-allowed {
		t.Errorf("%d of %d dropped, want at least %d", n, burst, burst-allowed)
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
