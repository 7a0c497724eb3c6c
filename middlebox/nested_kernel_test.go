package middlebox

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gauntlet/topo"
	"gauntlet/topo/ns"
)

// Translation at every depth, with a firewall inside a NAT inside a NAT:
//
//	internet -- s1
//	  |
//	 isp -- neighbour
//	  |
//	 home
//	  |
//	 wall -- alice
func TestNestedBoxes(t *testing.T) {
	nat, _ := Preset("port-restricted")
	wall, _ := Preset("stateful-firewall")
	behaviours := map[string]Behaviour{"isp": nat, "home": nat, "wall": wall}
	l := build(t, topo.Description{
		Boxes: []topo.BoxDescription{{Name: "isp", Translates: true, Addresses: 2}, {Name: "home", Behind: "isp", Translates: true}, {Name: "wall", Behind: "home"}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "neighbour", Behind: "isp"}, {Name: "alice", Behind: "wall"}},
	})
	for name, b := range behaviours {
		l.load(name, b)
	}
	isp, _ := l.plan.Box("isp")
	home, _ := l.plan.Box("home")
	alice, server := l.udp("alice"), l.udp("s1")
	outside := l.observe(alice, server)
	if outside.Addr() != isp.WAN[0] && outside.Addr() != isp.WAN[1] {
		t.Errorf("the internet sees %v, want one of %v", outside, isp.WAN)
	}
	if again := l.observe(alice, l.udp("s2")); again != outside {
		t.Errorf("another server sees %v, want %v: paired pooling", again, outside)
	}
	if seen := l.observe(alice, l.udp("neighbour")); seen.Addr() != home.WAN[0] {
		t.Errorf("the neighbour sees %v, want %v", seen, home.WAN[0])
	}
	l.send(server, outside, "answer")
	if got, _ := l.receive(alice); got != "answer" {
		t.Errorf("alice got %q", got)
	}
	client, accepted := l.tcp("alice", "s1")
	exchange(t, client, accepted, "through three boxes")
	// A stranger is stopped at the outermost box.
	l.send(l.udp("s2"), outside, "stranger")
	l.untilDropped("isp", UnsolicitedRule, 1)
	// The neighbour is outside home: home's address is open to nobody there.
	l.send(l.udp("neighbour"), netip.AddrPortFrom(home.WAN[0], 4000), "stranger")
	l.untilDropped("home", UnsolicitedRule, 1)
}

// After FlushConntrack an answer is unsolicited, and after the timer too.
func TestMappingEnds(t *testing.T) {
	nat, _ := Preset("port-restricted")
	nat.UDPTimeout = time.Second
	l := newLab(t, nat, nat)
	alice, server := l.udp("alice"), l.udp("s1")
	outside := l.observe(alice, server)
	l.send(server, outside, "in time")
	if got, _ := l.receive(alice); got != "in time" {
		t.Errorf("alice got %q", got)
	}
	if err := FlushConntrack(l.space("a")); err != nil {
		t.Fatal(err)
	}
	l.send(server, outside, "flushed")
	l.untilDropped("a", UnsolicitedRule, 1)

	start := time.Now()
	outside = l.observe(alice, server)
	// The entry's own timer is the clock to wait for: RFC 4787, REQ-5.
	deadline := start.Add(patience)
	for flows(t, l.space("a")) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the mapping still lives %v after its only packet, with a timer of 1 s", patience)
		}
	}
	if lived := time.Since(start); lived < 900*time.Millisecond {
		t.Errorf("the mapping lived %v, want 1 s", lived)
	}
	l.send(server, outside, "too late")
	l.untilDropped("a", UnsolicitedRule, 2)
}

func TestLoadSetsTimer(t *testing.T) {
	nat, _ := Preset("port-restricted")
	l := newLab(t, nat, nat)
	for _, c := range []struct {
		timeout time.Duration
		want    string
	}{{0, "300"}, {30 * time.Second, "30"}} {
		nat.UDPTimeout = c.timeout
		l.load("a", nat)
		for _, name := range []string{"udp_timeout", "udp_timeout_stream"} {
			if err := l.space("a").Do(func() error {
				got, err := ns.ReadSysctl("net.netfilter.nf_conntrack_" + name)
				if got != c.want {
					t.Errorf("%s is %s, want %s", name, got, c.want)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A flow that was translated to an address which the box has no longer doesn't
// get out with it, answered or not.
func TestFormerAddress(t *testing.T) {
	nat, _ := Preset("port-restricted")
	for _, answered := range []bool{false, true} {
		l := newLab(t, nat, nat)
		alice, server := l.udp("alice"), l.udp("s1")
		outside := l.observe(alice, server)
		if answered {
			l.send(server, outside, "answer")
			l.receive(alice)
		}
		rs, err := Rules(Box{
			Name: "a", Behaviour: nat, WAN: "wan", LAN: "lan", WANAddrs: []netip.Addr{netip.MustParseAddr("198.18.200.1")},
			LANPrefix: netip.PrefixFrom(l.addr("alice"), 24).Masked(), LogGroup: group,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := Load(l.space("a"), rs); err != nil {
			t.Fatal(err)
		}
		l.send(alice, local(server), "from before")
		l.untilDropped("a", UntranslatedRule, 1)
	}
}

// Hosts behind firewalls come to the NAT with their own addresses, and each has
// a block of ports there, of both protocols. Their networks take turns:
//
//	internet -- s1
//	  |
//	 isp -- neighbour
//	  |  \
//	hall  wall -- bob
//	  |
//	room -- alice
func TestFirewallsBehindBlocks(t *testing.T) {
	t.Parallel()
	nat, _ := Preset("cgnat")
	wall, _ := Preset("stateful-firewall")
	l := build(t, topo.Description{
		Boxes: []topo.BoxDescription{{Name: "isp", Translates: true}, {Name: "hall", Behind: "isp"}, {Name: "wall", Behind: "isp"}, {Name: "room", Behind: "hall"}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "neighbour", Behind: "isp"}, {Name: "alice", Behind: "room"}, {Name: "bob", Behind: "wall"}},
	})
	for name, b := range map[string]Behaviour{"isp": nat, "hall": wall, "wall": wall, "room": wall} {
		l.load(name, b)
	}
	isp, _ := l.plan.Box("isp")
	networks := append([]netip.Prefix{isp.LAN}, isp.Routed()...)
	for _, host := range []string{"neighbour", "alice", "bob"} {
		client, server := l.udp(host), l.udp("s1")
		outside := l.observe(client, server)
		l.send(server, outside, "answer")
		if got, _ := l.receive(client); got != "answer" {
			t.Errorf("%s got %q", host, got)
		}
		one, other := l.tcp(host, "s1")
		exchange(t, one, other, "through the boxes")
		a := l.addr(host)
		turn := slices.IndexFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
		want := (int(a.As4()[3])-firstInside)*len(networks) + turn
		for _, port := range []uint16{outside.Port(), other.RemoteAddr().(*net.TCPAddr).AddrPort().Port()} {
			if block := (int(port) - firstPort) / DefaultPortBlock; len(networks) != 4 || block != want {
				t.Errorf("%s, %v: port %d is of block %d, want %d; networks %v", host, a, port, block, want, networks)
			}
		}
	}
}
