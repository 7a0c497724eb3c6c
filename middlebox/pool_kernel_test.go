package middlebox

import (
	"net"
	"net/netip"
	"testing"

	"gauntlet/topo"
)

// RFC 4787, REQ-2: with paired pooling an internal address has one external
// address, whatever it sends from and to; with arbitrary pooling it has several.
func TestPool(t *testing.T) {
	const addresses, hosts, sockets = 3, 4, 12
	for _, m := range []Mapping{MapEndpointIndependent, MapAddressDependent, MapAddressAndPortDependent} {
		for _, pool := range []Pool{PairedPool, ArbitraryPool} {
			t.Run(string(m)+" "+string(pool), func(t *testing.T) {
				t.Parallel()
				l := build(t, topo.Description{
					Boxes: []topo.BoxDescription{{Name: "a", Translates: true, Addresses: addresses}},
					Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "a"}},
				})
				l.load("a", Behaviour{Mapping: m, Filtering: FilterAddressAndPortDependent, Pool: pool})
				servers := []*net.UDPConn{l.udp("s1"), l.udp("s2")}
				all := map[netip.Addr]bool{}
				inside := l.addr("alice")
				for range hosts {
					mine := map[netip.Addr]bool{}
					for range sockets {
						c := l.secondHost(inside, 0)
						for _, server := range servers {
							outside := l.observe(c, server)
							mine[outside.Addr()], all[outside.Addr()] = true, true
							l.send(server, outside, "answer")
							l.receive(c)
						}
					}
					// By chance, one in 3^11 hosts has but one address.
					if want := pool == PairedPool; (len(mine) == 1) != want {
						t.Errorf("%v has %d external addresses with pool: %s", inside, len(mine), pool)
					}
					inside = inside.Next()
				}
				if pool == ArbitraryPool && len(all) != addresses {
					t.Errorf("%d external addresses are used, want all %d", len(all), addresses)
				}
				box, _ := l.plan.Box("a")
				for a := range all {
					if a.Less(box.WAN[0]) || box.WAN[addresses-1].Less(a) {
						t.Errorf("%v isn't an address of the box", a)
					}
				}
			})
		}
	}
}

// A block of ports is one internal address's own, and ends.
func TestPortBlock(t *testing.T) {
	const block = 8
	for _, m := range []Mapping{MapEndpointIndependent, MapAddressAndPortDependent} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			b := Behaviour{Mapping: m, Filtering: FilterAddressAndPortDependent, Ports: BlockPorts, PortBlock: block}
			l := newLab(t, b, b)
			server := l.udp("s1")
			owners := map[int]netip.Addr{}
			taken := map[netip.AddrPort]bool{}
			inside := l.addr("alice")
			for range 2 {
				// Until the block is all but full a try rarely fails 16 times.
				for range block / 2 {
					outside := l.observe(l.secondHost(inside, 0), server)
					n := (int(outside.Port()) - firstPort) / block
					if owner, ok := owners[n]; ok && owner != inside {
						t.Errorf("%v has a port of %v's block %d", inside, owner, n)
					}
					owners[n] = inside
					if taken[outside] {
						t.Errorf("%v is given out twice", outside)
					}
					taken[outside] = true
				}
				before := l.dropped("a", NoPortRule)
				for range 2 * block {
					l.send(l.secondHost(inside, 0), local(server), "one too many")
				}
				// At least block of these find nothing.
				l.untilAtLeast("a", NoPortRule, before+block+block/2)
				drain(l, server)
				inside = inside.Next()
			}
			if len(owners) != 2 {
				t.Errorf("two internal addresses have %d blocks", len(owners))
			}
		})
	}
}

// drain takes what has come.
func drain(l *lab, c *net.UDPConn) {
	for l.hears(c, pace) {
	}
}

// What is denied is stopped both ways, also where all else is let in.
func TestDenyInward(t *testing.T) {
	for _, name := range []string{"open", "full-cone", "port-restricted"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := Preset(name)
			l := newLab(t, b, b)
			alice, s1, s2 := l.udp("alice"), l.udp("s1"), l.udp("s2")
			outside := l.observe(alice, s1)
			l.observe(alice, s2)
			l.load("a", with(b, func(b *Behaviour) { b.Deny = []Deny{{Host: "s1", Protocol: UDP}} }))
			l.observe(alice, s2) // the mapping is known again
			l.send(s1, outside, "denied")
			l.untilDropped("a", DenyRule("s1"), 1)
			l.send(alice, local(s1), "denied too")
			l.untilDropped("a", DenyRule("s1"), 2)
			l.send(s2, outside, "let in")
			if got, _ := l.receive(alice); got != "let in" {
				t.Errorf("alice got %q", got)
			}
		})
	}
}
