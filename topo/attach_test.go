package topo

import (
	"net/netip"
	"slices"
	"testing"
)

// Points on the internet and on a LAN reach their neighbours and each other at
// once, with addresses that nobody has, and leave nothing behind.
func TestBench(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "corp"}, {Name: "home", Translates: true, Addresses: 2}},
		Hosts: []HostDescription{{Name: "carol", Behind: "corp"}, {Name: "alice", Behind: "home"}, {Name: "login", IPs: addrs("198.18.1.3")}},
	})
	listing := func() (all []string) {
		for _, at := range []string{InternetName, "corp", "home"} {
			if err := n.Namespace(at).Do(func() error {
				all = append(all, interfaces(t)...)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			all = append(all, neighbours(t, n.Namespace(at)))
		}
		return all
	}
	before := listing()
	b := NewBench(plan, n)
	for range 2 { // a bench can be used again
		outside, err := b.Free(InternetName, 3)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Free(InternetName, 300)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range outside {
			if slices.Contains(again, a) || slices.Contains(outside[:i], a) || a == netip.MustParseAddr("198.18.1.3") || !usablePublic(a) {
				t.Errorf("free address %v is not free", a)
			}
		}
		inner, err := b.Free("corp", 2)
		if err != nil {
			t.Fatal(err)
		}
		wan, err := b.Attach(InternetName, outside)
		if err != nil {
			t.Fatal(err)
		}
		first, err := b.Attach("corp", inner[:1])
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.Attach("corp", inner[1:])
		if err != nil {
			t.Fatal(err)
		}
		carol, _ := plan.Host("carol")
		in := listen(t, first, inner[0])
		for _, a := range outside {
			deliver(t, listen(t, wan, a), in, "in")
			deliver(t, in, listen(t, wan, a), "out")
		}
		deliver(t, in, listen(t, second, inner[1]), "neighbour")
		deliver(t, in, listen(t, n.Namespace("carol"), carol.Addrs[0]), "host")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if after := listing(); !slices.Equal(before, after) {
			t.Errorf("interfaces and neighbours: %v before, %v after", before, after)
		}
	}
	if _, err := b.Free("home", 1000); err == nil {
		t.Error("1000 free addresses on a /24")
	}
	if _, err := b.Free("nowhere", 1); err == nil {
		t.Error("a free address at an unknown place")
	}
	if _, err := b.Attach("nowhere", addrs("10.9.9.9")); err == nil {
		t.Error("a point at an unknown place")
	}
}

// A box on a LAN reaches a point there by all its addresses, also by one that an
// earlier point had.
func TestBenchAddressesMove(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "corp"}, {Name: "lab", Behind: "corp"}},
		Hosts: []HostDescription{{Name: "dan", Behind: "lab"}},
	})
	lab, _ := plan.Box("lab")
	dan, _ := plan.Host("dan")
	from := listen(t, n.Namespace("dan"), dan.Addrs[0])
	for range 3 {
		b := NewBench(plan, n)
		free, err := b.Free("corp", 2)
		if err != nil {
			t.Fatal(err)
		}
		point, err := b.Attach("corp", free, Route{To: lab.LAN, Via: lab.WAN[0]})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range free {
			at := listen(t, point, a)
			deliver(t, from, at, "out")
			deliver(t, at, from, "in")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(free) // the first one is whose hardware address the point has
		if point, err = b.Attach("corp", free); err != nil {
			t.Fatal(err)
		}
		for _, a := range free {
			deliver(t, from, listen(t, point, a), "moved")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A LAN without hosts has no carrier until a point is attached, and passes
// packets as soon as one is.
func TestBenchOnEmptyLAN(t *testing.T) {
	plan, n := build(t, Description{Boxes: []BoxDescription{{Name: "room", Translates: true}}})
	room, _ := plan.Box("room")
	from := listen(t, n.Namespace("room"), room.LANAddr)
	for range 50 {
		b := NewBench(plan, n)
		free, err := b.Free("room", 1)
		if err != nil {
			t.Fatal(err)
		}
		point, err := b.Attach("room", free)
		if err != nil {
			t.Fatal(err)
		}
		deliver(t, from, listen(t, point, free[0]), "in")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
