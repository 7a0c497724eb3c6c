package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/judge"
	"gauntlet/lab/path"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"

	"github.com/google/go-cmp/cmp"
)

const two = `name: two rows
claims: [P-S0]
topology: {hosts: {login: {}, a: {}, b: {}}}
nodes: {login: {role: login}, a: {role: client}, b: {role: client}}
steps:
  - login: [a, b]
    claims: [P-L0]
    expect: {path: direct}
  - search: {caller: a, callee: b}
    expect: {path: direct}
  - search: {caller: b, callee: a}
    expect: {path: direct}
  - call: {caller: a, callee: b}
    expect: {signalling: {path: direct}, media: {path: direct}}
`

func parse(t *testing.T, id string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse(id+".yaml", []byte(two))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSelect(t *testing.T) {
	all := []*scenario.Scenario{parse(t, "first"), parse(t, "second")}
	for _, test := range []struct {
		patterns string
		want     int
	}{
		{"", 2}, {"first", 1}, {"p-l0", 2}, {"P-S0,nothing", 2}, {"second/call", 1}, {"third", 0}, {"first, second", 2}, {"first,", 1}, {" ,second", 1}, {",", 0},
	} {
		if got := Select(all, test.patterns); len(got) != test.want {
			t.Errorf("--only %q keeps %d, want %d", test.patterns, len(got), test.want)
		}
	}
}

// A scenario that can't even be built gives all its checks, with the reason.
func TestNothingDriven(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("out of time"))
	one := &single{Scenario: parse(t, "x"), name: "x", tell: func(Event) {}, random: newRandom(1, "x", 0), options: Options{Work: t.TempDir()}}
	var ids []string
	for _, c := range one.run(ctx).Checks {
		ids = append(ids, c.ID)
		if c.Verdict != "inconclusive" || !strings.Contains(c.Reason, "the lab does not stand: ") {
			t.Errorf("%s: %s: %s", c.ID, c.Verdict, c.Reason)
		}
	}
	want := []string{"x/login/a", "x/login/b", "x/search", "x/search.2", "x/call/signalling", "x/call/media"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}

func TestUnlike(t *testing.T) {
	yes := true
	expected := &scenario.Found{UDP: &yes, Mapping: "endpoint-independent", Filtering: "address-dependent"}
	found := control.Middlebox{UDP: true, Mapping: "endpoint-independent", Filtering: "address-dependent"}
	if got := unlike(expected, &found); got != "" {
		t.Errorf("alike, but %q", got)
	}
	found.Mapping = "none"
	if got := unlike(expected, &found); !strings.Contains(got, `mapping "none", expected "endpoint-independent"`) {
		t.Errorf("%q", got)
	}
	if got := unlike(expected, nil); got == "" {
		t.Error("no finding is as expected")
	}
}

func TestClaimed(t *testing.T) {
	if claimed(nil) != nil {
		t.Error("a claim out of nothing")
	}
	got := claimed(&control.Path{Path: "relayed", Hops: 1, Relays: 2, Carrying: 1, Legs: []control.Leg{{From: "a", To: "sn", Transport: "udp"}}})
	want := &path.Record{Path: "relayed", Hops: 1, Relays: 2, Carrying: 1, Legs: []path.Leg{{From: "a", To: "sn", Transport: "udp"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Payloads are of an unusual size between 32 and 48 KiB.
func TestPayload(t *testing.T) {
	one := &single{random: newRandom(1, "x", 0)}
	for range 100 {
		if n := len(one.payload(0)); n <= 32<<10 || n >= 48<<10 || n%2 == 0 {
			t.Fatalf("%d bytes", n)
		}
	}
	if n := len(one.payload(907)); n != 907 {
		t.Errorf("%d bytes, asked for 907", n)
	}
}

// A scenario's randomness follows from the seed, its ID and the repetition.
func TestRandom(t *testing.T) {
	draw := func(seed uint64, id string, repetition int) [4]uint64 {
		r := newRandom(seed, id, repetition)
		return [4]uint64{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}
	}
	first := draw(1, "x", 0)
	if again := draw(1, "x", 0); again != first {
		t.Errorf("%v, and the second time %v", first, again)
	}
	seen := map[[4]uint64]bool{}
	for _, id := range []string{"", "x", "y", "0 x"} {
		for repetition := range 3 {
			for seed := range uint64(3) {
				seen[draw(seed, id, repetition)] = true
			}
		}
	}
	if len(seen) != 4*3*3 {
		t.Errorf("%d different ones, want %d", len(seen), 4*3*3)
	}
}

// Names that are no folder's, or the lab's own, are refused before anything is
// removed or written.
func TestNames(t *testing.T) {
	for _, id := range []string{"..", "", judge.ControlFolder} {
		s := parse(t, "x")
		s.ID = id
		if _, err := Scenarios(t.Context(), []*scenario.Scenario{s}, Options{Work: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Nothing of an earlier run is left to be taken for the results of the next.
func TestForgetReport(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{judge.RunFile, judge.ResultsFile} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a folder that is no report stays none
		if err := ForgetReport(dir); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A report that can't be written is an error of the run.
func TestNoReport(t *testing.T) {
	o := Options{Work: t.TempDir(), Report: "/dev/null/report"}
	if _, err := Scenarios(t.Context(), nil, o); !errors.Is(err, ErrReport) {
		t.Errorf("%v", err)
	}
}

// A step's own name takes the place of what it does in the names of its checks.
func TestNamedStep(t *testing.T) {
	s, err := scenario.Parse("x.yaml", []byte(strings.Replace(two, "- call:", "- name: O-F\n    call:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range judge.Plan(s)[3] {
		ids = append(ids, p.Check.ID)
	}
	if diff := cmp.Diff([]string{"x/O-F/signalling", "x/O-F/media"}, ids); diff != "" {
		t.Error(diff)
	}
}
