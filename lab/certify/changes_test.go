package certify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
)

// turning is a scenario in which boxes change: what they become depends on what
// they were, one has a pool, one keeps hosts out of reach, one comes twice.
const turning = `
topology:
  middleboxes:
    home: {preset: port-restricted}
    isp:  {preset: cgnat, addresses: 2}
    room: {preset: restricted-cone, behind: isp}
    corp: {preset: stateful-firewall}
  hosts: {login: {}, alice: {behind: home}, bob: {behind: room}, carol: {behind: corp}}
nodes: {alice: {exec: [none]}}
steps:
  - change: {box: home, preset: tcp-blocked, block: [udp]}
  - change: {box: home, preset: symmetric}
  - change: {box: corp, preset: login-blocked}
  - change: {box: isp, preset: full-cone}
  - change: {box: room, mapping: endpoint-independent, filtering: address-and-port-dependent, ports: sequential, hairpin: true}
  - change: {box: home, preset: udp-blocked}
  - change: {box: home, preset: symmetric}
`

func turns(t *testing.T) *scenario.Scenario {
	t.Helper()
	permitted(t)
	s, err := scenario.Parse("turning.yaml", []byte(turning))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChanges(t *testing.T) {
	certificates, err := Changes(t.Context(), turns(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range certificates {
		got = append(got, fmt.Sprintf("%d %s %s %s", c.Step, c.Box, c.Label, c.Measured.Mapping))
		for _, d := range c.Differences {
			t.Errorf("step %d, %s (%s): %s", c.Step, c.Box, c.Label, d)
		}
		t.Logf("step %d, %s: %.1f ms", c.Step, c.Box, c.Seconds*1e3)
	}
	want := []string{
		"1 home tcp-blocked ", "2 home symmetric address-and-port-dependent", "3 corp login-blocked none",
		"4 isp full-cone endpoint-independent", "5 room custom endpoint-independent",
		"6 home udp-blocked ", "7 home symmetric address-and-port-dependent",
	}
	if !slices.Equal(got, want) {
		t.Errorf("certificates\n%q, want\n%q", got, want)
	}
}

// A box that becomes something else than the step says is found at the steps
// that change it into that, and concerns the steps until the next change.
func TestChangesFindLiar(t *testing.T) {
	certificates, err := Changes(t.Context(), turns(t), func(i *internet.Internet) error {
		home := i.Boxes()[0]
		if home.Name != "home" || home.Label != "symmetric" {
			return nil
		}
		lie, _ := middlebox.Preset("full-cone")
		rules, err := middlebox.Rules(middlebox.Box{
			Name: "home", Behaviour: lie, WAN: "wan", LAN: "lan",
			WANAddrs: home.WAN, LANPrefix: home.LAN, LogGroup: internet.LogGroup,
		})
		if err != nil {
			return err
		}
		return middlebox.Load(i.Namespace("home"), rules)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if want := c.Step != 2 && c.Step != 7; c.Certified() != want || c.Unmeasured {
			t.Errorf("step %d, %s: certified %v, want %v: %q", c.Step, c.Box, c.Certified(), want, c.Differences)
		}
	}
	for step := 1; step <= len(certificates)+1; step++ {
		reasons := Failed(certificates, []string{"home"}, step)
		want := ""
		switch {
		case step == 8:
			want = "home (symmetric, changed in step 7): "
		case step >= 3 && step <= 6:
			want = "home (symmetric, changed in step 2): "
		}
		if want == "" && len(reasons) > 0 || want != "" && (len(reasons) != 1 || !strings.HasPrefix(reasons[0], want)) {
			t.Errorf("step %d: %q, want %q", step, reasons, want)
		}
		if other := Failed(certificates, []string{"corp", "isp"}, step); len(other) > 0 {
			t.Errorf("step %d, other boxes: %q", step, other)
		}
	}
}

// What can't be measured is the certificate's, not the run's.
func TestChangesUnmeasured(t *testing.T) {
	certificates, err := Changes(t.Context(), turns(t), func(i *internet.Internet) error {
		if i.Boxes()[0].Name == "corp" {
			return fmt.Errorf("no room")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if lacks := c.Box == "corp"; c.Unmeasured != lacks || lacks && !strings.Contains(c.Differences[0], "no room") {
			t.Errorf("step %d, %s: unmeasured %v: %q", c.Step, c.Box, c.Unmeasured, c.Differences)
		}
	}
}
