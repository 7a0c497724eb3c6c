package tests

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/pairs"
	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// reasoned are folders of scenarios that theory reasons out: boxes that stand
// behind boxes, or in front of both ends; searches once bindings have expired;
// boxes that deny supernodes, while the others help as far as they can; boxes that
// are like none of the presets.
var reasoned = []string{"nesting", "expiry", "denied", "boxes"}

// Each function takes the path that is written in the file, which is the one that
// theory expects.
func TestReasoned(t *testing.T) {
	t.Parallel()
	args := []string{"--parallel", "3"}
	for _, folder := range reasoned {
		scenarios, err := filepath.Glob(folder + "/*.yaml")
		if err != nil || len(scenarios) == 0 {
			t.Fatalf("no scenarios in %s: %v", folder, err)
		}
		args = append(args, scenarios...)
	}
	r, o := results(t, args...)
	if o.status != report.ExitPass {
		t.Errorf("exit status %d\n%s", o.status, o.stderr)
	}
	calls := map[string]bool{}
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass || c.Theory == nil {
			t.Errorf("%s: %s: %s\n%s", c.ID, c.Verdict, c.Reason, strings.Join(c.Notes, "\n"))
		}
		if c.Function == "call media" {
			calls[c.Scenario] = true
		}
	}
	for _, name := range args[1:] {
		if folder, file := filepath.Split(name); folder == "nesting/" && !calls[strings.TrimSuffix(file, ".yaml")] {
			t.Errorf("%s: no check of a call's media", name)
		}
	}
}

// The tables of topologies in which boxes stand behind boxes have no cell that
// differs from theory.
func TestPairsOfNesting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		topology string
		pairs    int
	}{
		// Two homes behind one provider's NAT, one of them with two clients.
		"town": {`topology:
  middleboxes:
    isp: {preset: cgnat}
    home-a: {preset: port-restricted, behind: isp}
    home-b: {preset: port-restricted, behind: isp}
  hosts: {alice: {behind: home-a}, anna: {behind: home-a}, bob: {behind: home-b}}
`, 6},
		// Three NATs behind one firewall, of which one filters, and a NAT elsewhere
		// that maps by address and filters nobody.
		"campus": {`topology:
  middleboxes:
    campus: {preset: stateful-firewall}
    lab-a: {preset: full-cone, behind: campus}
    lab-b: {preset: full-cone, behind: campus}
    lab-c: {preset: port-restricted, behind: campus}
    home: {mapping: address-dependent, filtering: endpoint-independent}
  hosts: {alice: {behind: lab-a}, bob: {behind: lab-b}, carol: {behind: lab-c}, dave: {behind: home}}
`, 12},
	} {
		o := do(t, "pairs", "--topology", file(t, name+".yaml", c.topology), "--format", "json")
		var r pairs.Results
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
			t.Fatalf("%s: %v\nstatus %d, stdout:\n%s\nstderr:\n%s", name, err, o.status, o.stdout, o.stderr)
		}
		if len(r.Pairs) != c.pairs {
			t.Errorf("%s: %d pairs, want %d", name, len(r.Pairs), c.pairs)
		}
		for _, p := range r.Pairs {
			if p.Verdict != verdict.Pass {
				t.Errorf("%s: %s-%s: %s: %v", name, p.Caller, p.Callee, p.Verdict, p.Reasons)
			}
		}
	}
}
