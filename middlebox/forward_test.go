package middlebox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// BenchmarkForward compares the packet rate of a UDP flow through a generated
// port-restricted box with that through a hand-written masquerade. Two sites of
// the same network send short bursts in turn, and change their rules at half
// time; what counts is the median, over all pairs of neighbouring bursts, of
// the ratio of their times. So neither the place of a site nor another load on
// the machine decides. The flow was answered before, and goes out, or in.
func BenchmarkForward(b *testing.B) {
	plan, err := topo.NewPlan(topo.Description{
		Boxes: []topo.BoxDescription{{Name: "box0", Translates: true}, {Name: "box1", Translates: true}},
		Hosts: []topo.HostDescription{{Name: "server"}, {Name: "host0", Behind: "box0"}, {Name: "host1", Behind: "box1"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	network, err := topo.Build(b.Context(), plan)
	if err != nil {
		b.Fatal(err)
	}
	defer network.Close()
	r := rivals{B: b, plan: plan, network: network}
	for _, way := range []string{"out", "in"} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", way, size), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				r := r
				r.B = b
				var all []pair
				for b.Loop() {
					for _, generated := range []int{0, 1} {
						r.load(generated)
						all = append(all, r.race(generated, way == "in", make([]byte, size))...)
					}
				}
				report(b, all)
			})
		}
	}
}

// A burst is short enough that what disturbs the machine disturbs both of a
// pair, and long enough to be timed.
const (
	burst = 200
	pairs = 800
)

// rivals are two sites, box0 with host0 and box1 with host1, and a server.
type rivals struct {
	*testing.B
	plan    *topo.Plan
	network *topo.Network
}

// pair is how long two neighbouring bursts took.
type pair struct{ generated, byHand time.Duration }

// load gives one box the generated rules and the other those by hand.
func (r rivals) load(generated int) {
	r.Helper()
	preset, _ := Preset("port-restricted")
	for i := range 2 {
		box, _ := r.plan.Box(fmt.Sprintf("box%d", i))
		rs := masqueradeByHand()
		if i == generated {
			var err error
			if rs, err = Rules(Box{Name: box.Name, Behaviour: preset, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, LogGroup: group}); err != nil {
				r.Fatal(err)
			}
		}
		h := r.network.Namespace(box.Name)
		if err := Load(h, rs); err != nil {
			r.Fatal(err)
		}
		if err := FlushConntrack(h); err != nil {
			r.Fatal(err)
		}
	}
}

// race sends bursts through both boxes in turn, either first in turn.
func (r rivals) race(generated int, in bool, payload []byte) (all []pair) {
	r.Helper()
	server := r.open("server")
	defer server.Close()
	var send [2]func() time.Duration
	for i := range send {
		host := r.open(fmt.Sprintf("host%d", i))
		defer host.Close()
		outside := r.exchange(host, server)
		from, to := host, local(server)
		if in {
			from, to = server, outside
		}
		send[i] = func() time.Duration {
			start := time.Now()
			for range burst {
				if _, err := from.WriteToUDPAddrPort(payload, to); err != nil {
					r.Fatal(err)
				}
			}
			return time.Since(start)
		}
	}
	for n := range pairs {
		var took [2]time.Duration
		took[n%2] = send[n%2]()
		took[1-n%2] = send[1-n%2]()
		all = append(all, pair{took[generated], took[1-generated]})
	}
	return all
}

func (r rivals) open(host string) (c *net.UDPConn) {
	r.Helper()
	h, _ := r.plan.Host(host)
	if err := r.network.Namespace(host).Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: h.Addrs[0].AsSlice()})
		return err
	}); err != nil {
		r.Fatal(err)
	}
	return c
}

// exchange makes a flow that goes both ways and returns its external endpoint.
func (r rivals) exchange(host, server *net.UDPConn) netip.AddrPort {
	r.Helper()
	buf := make([]byte, 1)
	deadline := time.Now().Add(patience)
	if _, err := host.WriteToUDPAddrPort(buf, local(server)); err != nil {
		r.Fatal(err)
	}
	if err := errors.Join(server.SetReadDeadline(deadline), host.SetReadDeadline(deadline)); err != nil {
		r.Fatal(err)
	}
	_, outside, err := server.ReadFromUDPAddrPort(buf)
	if err != nil {
		r.Fatal(err)
	}
	if _, err := server.WriteToUDPAddrPort(buf, outside); err != nil {
		r.Fatal(err)
	}
	if _, err := host.Read(buf); err != nil {
		r.Fatal(err)
	}
	return outside
}

// report gives the ratio of the rates, and the rates.
func report(b *testing.B, all []pair) {
	middle := func(of func(pair) float64) float64 {
		list := make([]float64, len(all))
		for i, p := range all {
			list[i] = of(p)
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(middle(func(p pair) float64 { return burst / p.generated.Seconds() }), "packets/s")
	b.ReportMetric(middle(func(p pair) float64 { return burst / p.byHand.Seconds() }), "by-hand-packets/s")
	b.ReportMetric(middle(func(p pair) float64 { return float64(p.byHand) / float64(p.generated) }), "ratio")
	b.ReportMetric(0, "ns/op")
}
