package middlebox

import (
	"testing"

	"gauntlet/topo"
)

// Two clients of one home reach each other by their external endpoints at the
// carrier's NAT, which sees both their packets come from one address and has to
// send them back to it (RFC 4787, REQ-9; RFC 6888, REQ-1):
//
//	internet -- s1
//	  |
//	 isp
//	  |
//	 home
//	  |
//	alice, bob
func TestHairpinThroughCarrier(t *testing.T) {
	for _, name := range []string{"port-restricted", "full-cone", "restricted-cone"} {
		t.Run(name, func(t *testing.T) {
			l := build(t, topo.Description{
				Boxes: []topo.BoxDescription{{Name: "isp", Translates: true}, {Name: "home", Behind: "isp", Translates: true}},
				Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "home"}, {Name: "bob", Behind: "home"}},
			})
			carrier, _ := Preset("cgnat")
			home, _ := Preset(name)
			l.load("isp", carrier)
			l.load("home", home)
			alice, bob, server := l.udp("alice"), l.udp("bob"), l.udp("s1")
			a, b := l.observe(alice, server), l.observe(bob, server)
			l.send(alice, b, "from alice") // opens her box, and may be stopped at it
			l.send(bob, a, "from bob")
			if got, from := l.receive(alice); got != "from bob" || from != b {
				t.Errorf("alice got %q from %v, want bob's from %v", got, from, b)
			}
		})
	}
}
