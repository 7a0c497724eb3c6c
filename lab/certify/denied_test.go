package certify

import (
	"slices"
	"testing"
)

// A host behind a NAT is denied by a firewall behind the same one, and by no box
// elsewhere: those are not tried with an address that means nothing to them.
const deniedInside = `
topology:
  middleboxes:
    isp:   {preset: port-restricted}
    room:  {preset: stateful-firewall, behind: isp, deny: [bob, carol]}
    other: {preset: symmetric}
  hosts:
    alice: {behind: room}
    bob:   {behind: isp}
    carol: {}
    dave:  {behind: other}
`

func TestDeniedInside(t *testing.T) {
	i := up(t, deniedInside)
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if !c.Certified() {
			t.Errorf("%s: %q", c.Box, c.Differences)
		}
	}
	b, err := newBench(i)
	if err != nil {
		t.Fatal(err)
	}
	for box, want := range map[string][]string{"isp": {"carol"}, "room": {"bob", "carol"}, "other": {"carol"}} {
		var got []string
		for _, target := range b.outOf(box) {
			got = append(got, target.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is tried with %q, want %q", box, got, want)
		}
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}
