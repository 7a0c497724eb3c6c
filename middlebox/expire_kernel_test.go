package middlebox

import "testing"

// Mappings, filters and flows of UDP run out; counters and TCP connections
// stay, and the next datagram makes everything anew.
func TestExpireUDP(t *testing.T) {
	for _, name := range []string{"full-cone", "restricted-cone", "port-restricted", "symmetric", "cgnat", "confirming-router", "stateful-firewall"} {
		t.Run(name, func(t *testing.T) {
			declared, _ := Preset(name)
			l := newLab(t, declared, declared)
			alice, server := l.udp("alice"), l.udp("s1")
			client, far := l.tcp("alice", "s1")
			at := l.observe(alice, server)
			l.send(server, at, "while it lives")
			if got, _ := l.receive(alice); got != "while it lives" {
				t.Fatalf("alice got %q", got)
			}
			loader, err := NewLoader(l.space("a"))
			if err != nil {
				t.Fatal(err)
			}
			defer loader.Close()
			if err := loader.ExpireUDP(); err != nil {
				t.Fatal(err)
			}
			l.send(server, at, "too late")
			if declared.Unsolicited != ConfirmUnsolicited { // which drops nothing, and counts nothing
				l.untilDropped("a", UnsolicitedRule, 1)
			}
			again := l.observe(alice, server)
			l.send(server, again, "anew")
			if got, _ := l.receive(alice); got != "anew" {
				t.Errorf("alice got %q, want only what came after she sent again", got)
			}
			if _, err := client.Write([]byte("still here")); err != nil {
				t.Fatal(err)
			}
			var buf [16]byte
			if n, err := far.Read(buf[:]); err != nil || string(buf[:n]) != "still here" {
				t.Errorf("over TCP: %q, %v", buf[:n], err)
			}
		})
	}
}
