package middlebox

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"gauntlet/topo"
)

// masqueradeByHand is what one would write by hand: masquerade, and drop what
// nobody asked for.
func masqueradeByHand() *Ruleset {
	return &Ruleset{chains: []chain{
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, hookName: "postrouting", priority: prioritySourceNAT,
			rules: []rule{{terms: []term{oif("wan"), masquerade()}}}},
		{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, hookName: "input", priority: priorityFilter,
			rules: []rule{{terms: []term{iif("wan"), ctMask("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW), drop()}}}},
	}}
}

// BenchmarkForward compares the packet rate of one UDP flow through a generated
// port-restricted box with that through a hand-written masquerade, in turn in
// the same network. It reports the ratio of the medians.
func BenchmarkForward(b *testing.B) {
	const packets, turns = 4000, 41
	plan, err := topo.NewPlan(topo.Description{
		Boxes: []topo.BoxDescription{{Name: "generated", Translates: true}, {Name: "by-hand", Translates: true}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "alice", Behind: "generated"}, {Name: "bob", Behind: "by-hand"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	network, err := topo.Build(b.Context(), plan)
	if err != nil {
		b.Fatal(err)
	}
	defer network.Close()
	preset, _ := Preset("port-restricted")
	box, _ := plan.Box("generated")
	generated, err := Rules(Box{Name: "generated", Behaviour: preset, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, LogGroup: group})
	if err != nil {
		b.Fatal(err)
	}
	for name, rs := range map[string]*Ruleset{"generated": generated, "by-hand": masqueradeByHand()} {
		if err := Load(network.Namespace(name), rs); err != nil {
			b.Fatal(err)
		}
	}
	open := func(host string) (c *net.UDPConn) {
		h, _ := plan.Host(host)
		if err := network.Namespace(host).Do(func() (err error) {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: h.Addrs[0].AsSlice()})
			return err
		}); err != nil {
			b.Fatal(err)
		}
		return c
	}
	server, alice, bob := open("s1"), open("alice"), open("bob")
	defer server.Close()
	defer alice.Close()
	defer bob.Close()
	for _, size := range []int{64, 1400} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			payload := make([]byte, size)
			burst := func(c *net.UDPConn) time.Duration {
				start := time.Now()
				for range packets {
					if _, err := c.WriteToUDPAddrPort(payload, local(server)); err != nil {
						b.Fatal(err)
					}
				}
				return time.Since(start)
			}
			var ours, theirs []time.Duration
			for b.Loop() {
				for range turns {
					ours, theirs = append(ours, burst(alice)), append(theirs, burst(bob))
				}
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			mine, hand := ours[len(ours)/2], theirs[len(theirs)/2]
			b.ReportMetric(packets/mine.Seconds(), "packets/s")
			b.ReportMetric(packets/hand.Seconds(), "by-hand-packets/s")
			b.ReportMetric(float64(hand)/float64(mine), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}
