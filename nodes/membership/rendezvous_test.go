package membership

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
)

func some(n int) []Supernode {
	list := make([]Supernode, n)
	for i := range list {
		list[i].ID = ID{byte(i), byte(i >> 8), 0xaa}
		list[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 33033)
	}
	return list
}

func TestResponsible(t *testing.T) {
	all := some(12)
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	const names = 3000
	held := map[ID]int{}
	moved := 0
	for i := range names {
		name := fmt.Sprintf("user%d", i)
		three := Responsible(all, name, 3)
		if len(three) != 3 || three[0].ID == three[1].ID || three[1].ID == three[2].ID || three[0].ID == three[2].ID {
			t.Fatalf("%s: %v", name, three)
		}
		again := Responsible(reversed, fmt.Sprintf("USER%d", i), 3)
		for j := range three {
			held[three[j].ID]++
			if three[j].ID != again[j].ID {
				t.Fatalf("%s: depends on the order of the list or the case of the name", name)
			}
		}
		// Without the last supernode only the names that it held move.
		fewer := Responsible(all[:11], name, 3)
		if Contains(three, all[11].ID) {
			moved++
			continue
		}
		for j := range three {
			if three[j].ID != fewer[j].ID {
				t.Fatalf("%s moved though its supernodes stayed", name)
			}
		}
	}
	mean := float64(names) * 3 / 12
	for id, n := range held {
		if math.Abs(float64(n)-mean) > 6*math.Sqrt(mean) {
			t.Errorf("%s holds %d names, want about %.0f", id, n, mean)
		}
	}
	if moved == 0 || moved > names/2 {
		t.Errorf("%d of %d names moved", moved, names)
	}
	if got := Responsible(all[:2], "x", 3); len(got) != 2 {
		t.Errorf("%d of 2 supernodes are responsible", len(got))
	}
}
