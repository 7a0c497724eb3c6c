package topo

import (
	"net/netip"
	"strings"
	"testing"
)

// A firewall behind a firewall gets another address, twice: what lies behind
// both stays reachable, and the plan says what is.
func TestReaddress(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "corp", Addresses: 2}, {Name: "lab", Behind: "corp", Addresses: 2}},
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
