package topo

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"gauntlet/topo/ns"
)

// neighbours is the kernel's list of those that a namespace knows, in an order of
// our own: the kernel's is that of a hash.
func neighbours(t *testing.T, h *ns.Handle) (known string) {
	t.Helper()
	if err := h.Do(func() error {
		list, err := os.ReadFile("/proc/thread-self/net/arp")
		lines := strings.SplitAfter(string(list), "\n")
		slices.Sort(lines)
		known = strings.Join(lines, "")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return known
}

// A firewall behind a firewall gets another address, twice: what lies behind
// both stays reachable, and the plan says what is.
func TestReaddress(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "corp", Addresses: 2}, {Name: "lab", Behind: "corp", Addresses: 2}, {Name: "den", Behind: "corp"}},
		Hosts: []HostDescription{{Name: "login"}, {Name: "carol", Behind: "corp"}, {Name: "dan", Behind: "lab"}},
	})
	bench := NewBench(plan, n)
	given := plan
	for round := range 2 {
		for _, box := range []string{"lab", "corp"} {
			b, _ := plan.Box(box)
			at := b.Behind
			if at == "" {
				at = InternetName
			}
			to, err := bench.Free(at, 2)
			if err != nil {
				t.Fatal(err)
			}
			if plan, err = n.Readdress(plan, box, to); err != nil {
				t.Fatal(err)
			}
			if b, _ = plan.Box(box); b.WAN[0] != to[0] {
				t.Errorf("the plan has %s at %v, not %v", box, b.WAN, to)
			}
			// As after Build: nobody has to ask for it, over a link that may lose the question.
			if known := neighbours(t, n.Namespace(box)); !strings.Contains(known, b.Gateway.String()+" ") {
				t.Errorf("%s doesn't know its gateway %v:\n%s", box, b.Gateway, known)
			}
		}
		for _, pair := range [][2]string{{"login", "dan"}, {"dan", "login"}, {"carol", "dan"}, {"dan", "carol"}} {
			from, _ := plan.Host(pair[0])
			to, _ := plan.Host(pair[1])
			a, b := listen(t, n.Namespace(pair[0]), from.Addrs[0]), listen(t, n.Namespace(pair[1]), to.Addrs[0])
			if got, _ := deliver(t, a, b, pair[0]); got != pair[0] {
				t.Errorf("round %d: %s to %s: %q", round, pair[0], pair[1], got)
			}
		}
	}
	if b, _ := given.Box("corp"); b.WAN[0] != netip.MustParseAddr("198.18.1.1") {
		t.Errorf("the plan that was given has changed: %v", b.WAN)
	}

	// A neighbour that knew an address finds out that it is another's now.
	carol, _ := plan.Host("carol")
	from := listen(t, n.Namespace("carol"), carol.Addrs[0])
	reach := func(box string, a netip.Addr) {
		t.Helper()
		if got, _ := deliver(t, from, listen(t, n.Namespace(box), a), box); got != box {
			t.Errorf("carol to %s at %v: %q", box, a, got)
		}
	}
	lab, _ := plan.Box("lab")
	reach("lab", lab.WAN[0])
	free, err := bench.Free("corp", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, move := range []struct {
		box string
		to  []netip.Addr
	}{{"lab", free}, {"den", lab.WAN[:1]}} {
		if plan, err = n.Readdress(plan, move.box, move.to); err != nil {
			t.Fatal(err)
		}
		reach(move.box, move.to[0])
	}
	// Not through the box that had it, which would forward the packet.
	den, _ := given.Box("den")
	mac := hardwareAddress(insideEnd, den.WAN[0]).String()
	if known := neighbours(t, n.Namespace("carol")); !strings.Contains(known, mac) {
		t.Errorf("carol doesn't know %s:\n%s", mac, known)
	}

	login, _ := plan.Host("login")
	for _, test := range []struct {
		box  string
		to   []netip.Addr
		want string
	}{
		{"nowhere", nil, "no such box"},
		{"corp", addrs("198.18.3.3"), "expected 2"},
		{"corp", addrs("10.0.0.1", "198.18.3.3"), "expected ones of 198.18.0.0/16"},
		{"corp", []netip.Addr{login.Addrs[0], netip.MustParseAddr("198.18.3.3")}, "that nobody has"},
	} {
		if _, err := n.Readdress(plan, test.box, test.to); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s to %v: %v, want %s", test.box, test.to, err, test.want)
		}
	}
}
