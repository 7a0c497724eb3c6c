package tests

import (
	"encoding/json"
	"slices"
	"testing"

	"gauntlet/lab/pairs"
	"gauntlet/lab/verdict"
)

// Two hosts of a topology call each other after all bindings have run out, and
// both calls go as theory says: reversed one way, direct the other.
func TestPairsOfTopology(t *testing.T) {
	t.Parallel()
	topology := file(t, "two.yaml", `topology:
  middleboxes: {home: {preset: port-restricted}, flat: {preset: open}}
  hosts: {alice: {behind: home}, bob: {behind: flat}}
`)
	o := do(t, "pairs", "--topology", topology, "--expired", "--format", "json")
	var r pairs.Results
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v\nstatus %d, stdout:\n%s\nstderr:\n%s", err, o.status, o.stdout, o.stderr)
	}
	var got []string
	for _, p := range r.Pairs {
		if p.Verdict != verdict.Pass || p.Observed == nil {
			t.Errorf("%s-%s: %s: %v", p.Caller, p.Callee, p.Verdict, p.Reasons)
			continue
		}
		got = append(got, p.Caller+"-"+p.Callee+" "+p.Observed.Path)
		if !p.Theory.Media.Allows(*p.Observed) {
			t.Errorf("%s-%s: theory allows %s, the wire shows %s", p.Caller, p.Callee, p.Theory.Media, p.Observed.Path)
		}
	}
	want := []string{"alice-bob direct", "bob-alice reversed"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, c := range r.Checks {
		if c.Theory == nil || len(c.Theory.Reasoning) == 0 {
			t.Errorf("%s has no theory", c.ID)
		}
	}
}
