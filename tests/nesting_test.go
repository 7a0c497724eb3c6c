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

// Where boxes stand behind boxes, or both ends behind one, each function takes
// the path that is written in the file, which is the one that theory expects.
func TestNesting(t *testing.T) {
	t.Parallel()
	scenarios, err := filepath.Glob("nesting/*.yaml")
	if err != nil || len(scenarios) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	r, o := results(t, append([]string{"--parallel", "4"}, scenarios...)...)
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
	for _, name := range scenarios {
		if id := strings.TrimSuffix(filepath.Base(name), ".yaml"); !calls[id] {
			t.Errorf("%s: no check of a call's media", name)
		}
	}
}

// The table of two homes behind one provider's NAT, one of them with two
// clients, has no cell that differs from theory.
func TestPairsOfNesting(t *testing.T) {
	t.Parallel()
	topology := file(t, "town.yaml", `topology:
  middleboxes:
    isp: {preset: cgnat}
    home-a: {preset: port-restricted, behind: isp}
    home-b: {preset: port-restricted, behind: isp}
  hosts: {alice: {behind: home-a}, anna: {behind: home-a}, bob: {behind: home-b}}
`)
	o := do(t, "pairs", "--topology", topology, "--format", "json")
	var r pairs.Results
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v\nstatus %d, stdout:\n%s\nstderr:\n%s", err, o.status, o.stdout, o.stderr)
	}
	if len(r.Pairs) != 6 {
		t.Errorf("%d pairs, want 6", len(r.Pairs))
	}
	for _, p := range r.Pairs {
		if p.Verdict != verdict.Pass {
			t.Errorf("%s-%s: %s: %v", p.Caller, p.Callee, p.Verdict, p.Reasons)
		}
	}
}
