package topo

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var plans = map[string]Description{
	"flat": {Hosts: []HostDescription{{Name: "login"}, {Name: "update"}, {Name: "sn1"}}},
	"two-homes": {
		Boxes: []BoxDescription{{Name: "home-a", Translates: true}, {Name: "home-b", Translates: true}},
		Hosts: []HostDescription{{Name: "login"}, {Name: "alice", Behind: "home-a"}, {Name: "bob", Behind: "home-b"}, {Name: "ben", Behind: "home-b"}},
	},
	// The inner box comes first in the file, and the outer has two addresses.
	"double-nat": {
		Boxes: []BoxDescription{{Name: "home", Behind: "isp", Translates: true}, {Name: "isp", Translates: true, Addresses: 2}},
		Hosts: []HostDescription{{Name: "bob", Behind: "home"}, {Name: "neighbour", Behind: "isp"}, {Name: "login"}},
	},
	"firewall": {
		Boxes: []BoxDescription{{Name: "corp"}, {Name: "lab", Behind: "corp"}, {Name: "home", Behind: "lab", Translates: true}},
		Hosts: []HostDescription{{Name: "carol", Behind: "corp"}, {Name: "dan", Behind: "lab"}, {Name: "eve", Behind: "home"}, {Name: "login"}},
	},
	"firewall-behind-nat": {
		Boxes: []BoxDescription{{Name: "home", Translates: true}, {Name: "outer", Behind: "home"}, {Name: "inner", Behind: "outer"}},
		Hosts: []HostDescription{{Name: "alice", Behind: "inner"}, {Name: "login"}},
	},
	"given-addresses": {
		Boxes: []BoxDescription{{Name: "home", Translates: true}},
		Hosts: []HostDescription{
			{Name: "sn1", IPs: addrs("198.18.1.1")},
			{Name: "stun", IPs: addrs("198.18.1.3", "198.18.0.11"), Link: Link{Up: Shape{Rate: 128_000, Delay: 25 * time.Millisecond}}},
			{Name: "auto"}, {Name: "alice", Behind: "home"},
		},
	},
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestPlanGolden(t *testing.T) {
	for name, d := range plans {
		t.Run(name, func(t *testing.T) {
			plan, err := NewPlan(d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(plan, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("plan differs from %s (-want +got):\n%s", file, diff)
			}
			var read Plan
			if err := json.Unmarshal(got, &read); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*plan, read, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("plan changes when stored (-made +read):\n%s", diff)
			}
		})
	}
}

func TestPlanLookups(t *testing.T) {
	plan, err := NewPlan(plans["double-nat"])
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Chain("bob"); !slices.Equal(got, []string{"home", "isp"}) {
		t.Errorf("chain of bob is %v, want home, isp", got)
	}
	for _, name := range []string{"login", "nobody"} {
		if got := plan.Chain(name); len(got) != 0 {
			t.Errorf("chain of %s is %v, want none", name, got)
		}
	}
	if b, ok := plan.Box("isp"); !ok || len(b.WAN) != 2 {
		t.Errorf("box isp: %+v, %v; want two external addresses", b, ok)
	}
	if _, ok := plan.Host("isp"); ok {
		t.Error("isp is a box, but was found as a host")
	}
}

// A LAN grows with its members, and every address stays inside it and unique.
func TestPlanLargeLANs(t *testing.T) {
	for _, c := range []struct{ hosts, bits int }{{253, 24}, {254, 22}, {1021, 22}, {1022, 20}} {
		d := Description{Boxes: []BoxDescription{{Name: "small", Translates: true}, {Name: "big", Translates: true}}}
		for i := range c.hosts {
			d.Hosts = append(d.Hosts, HostDescription{Name: "h" + strings.Repeat("x", i/600) + "-" + string(rune('a'+i%26)) + "-" + string(rune('a'+i/26%26)), Behind: "big"})
		}
		plan, err := NewPlan(d)
		if err != nil {
			t.Fatalf("%d hosts: %v", c.hosts, err)
		}
		big, _ := plan.Box("big")
		if big.LAN.Bits() != c.bits || big.LAN != big.LAN.Masked() {
			t.Errorf("%d hosts: LAN is %v, want a /%d", c.hosts, big.LAN, c.bits)
		}
		seen := map[netip.Addr]bool{big.LANAddr: true, big.LAN.Addr(): true, last(big.LAN): true}
		for _, h := range plan.Hosts {
			if a := h.Addrs[0]; seen[a] || !big.LAN.Contains(a) {
				t.Fatalf("%d hosts: address %v is outside %v or not unique", c.hosts, a, big.LAN)
			} else {
				seen[a] = true
			}
		}
	}
}

// The external addresses of one box are a range, around what is given and what
// ends in 0 or 255.
func TestPlanPoolsAreRanges(t *testing.T) {
	d := Description{Hosts: []HostDescription{{Name: "sn1", IPs: addrs("198.18.1.3")}}}
	for i := range 3 {
		d.Boxes = append(d.Boxes, BoxDescription{Name: "isp" + string(rune('a'+i)), Translates: true, Addresses: 200})
	}
	plan, err := NewPlan(d)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{netip.MustParseAddr("198.18.1.3"): true}
	for _, b := range plan.Boxes {
		if len(b.WAN) != 200 {
			t.Errorf("%s has %d addresses, want 200", b.Name, len(b.WAN))
		}
		for i, a := range b.WAN {
			if seen[a] || endsIn0or255(a) || i > 0 && a != b.WAN[i-1].Next() {
				t.Fatalf("%s: address %v after %v", b.Name, a, b.WAN[max(0, i-1)])
			}
			seen[a] = true
		}
	}
}
