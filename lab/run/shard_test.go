package run

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gauntlet/lab/judge"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

func TestParseShard(t *testing.T) {
	if s, err := ParseShard("2/4"); err != nil || s != (Shard{1, 4}) || s.String() != "2/4" {
		t.Errorf("2/4: %v, %v", s, err)
	}
	for _, text := range []string{"", "0/4", "5/4", "1", "1/0", "-1/4", "1/4x", "01/4", "a/b", " 1/4"} {
		if s, err := ParseShard(text); err == nil {
			t.Errorf("%q is taken as %v", text, s)
		}
	}
}

// The shards of a suite are a partition of it, each in the suite's order, and no
// shard has more than the least loaded and the longest scenario together.
func TestShardsPartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*scenario.Scenario
		var earlier report.Results
		takes := map[string]float64{}
		longest := 0.0
		for i := range rapid.IntRange(0, 30).Draw(t, "scenarios") {
			id := fmt.Sprintf("s%02d", i)
			all = append(all, &scenario.Scenario{ID: id})
			seconds := rapid.Float64Range(0, 60).Draw(t, "seconds")
			earlier.Checks = append(earlier.Checks, report.Check{Scenario: id, Seconds: seconds})
			takes[id] = seconds + overhead
			longest = max(longest, takes[id])
		}
		n := rapid.IntRange(1, 8).Draw(t, "shards")
		seen := map[string]int{}
		var loads []float64
		for i := range n {
			part := Shard{i, n}.Pick(all, Durations(earlier))
			if !slices.IsSortedFunc(part, func(a, b *scenario.Scenario) int { return slices.Index(all, a) - slices.Index(all, b) }) {
				t.Errorf("shard %d is out of order", i)
			}
			load := 0.0
			for _, s := range part {
				seen[s.ID]++
				load += takes[s.ID]
			}
			loads = append(loads, load)
		}
		for _, s := range all {
			if seen[s.ID] != 1 {
				t.Errorf("%s is in %d shards", s.ID, seen[s.ID])
			}
		}
		if slices.Max(loads) > slices.Min(loads)+longest+1e-9 {
			t.Errorf("loads %v with the longest %v", loads, longest)
		}
	})
}

// The longest-processing-time rule: the busiest shard has at most 4/3 - 1/(3n) of
// what it has in the best of all splits (Graham, 1969). Every way to split is
// tried.
func TestShardsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3).Draw(t, "shards")
		var all []*scenario.Scenario
		takes := map[string]float64{}
		for i := range rapid.IntRange(1, 7).Draw(t, "scenarios") {
			id := fmt.Sprintf("s%d", i)
			all = append(all, &scenario.Scenario{ID: id})
			takes[id] = rapid.Float64Range(1, 60).Draw(t, "seconds")
		}
		busiest := 0.0
		for i := range n {
			load := 0.0
			for _, s := range (Shard{i, n}).Pick(all, takes) {
				load += takes[s.ID]
			}
			busiest = max(busiest, load)
		}
		if best, bound := bestSplit(all, takes, make([]float64, n)), 4.0/3-1/(3*float64(n)); busiest > bound*best+1e-9 {
			t.Errorf("the busiest of %d shards takes %.1f s, in the best split %.1f s", n, busiest, best)
		}
	})
}

// bestSplit is the least that the busiest shard can have, given what each has so
// far.
func bestSplit(rest []*scenario.Scenario, takes map[string]float64, loads []float64) float64 {
	if len(rest) == 0 {
		return slices.Max(loads)
	}
	best := math.Inf(1)
	for i := range loads {
		loads[i] += takes[rest[0].ID]
		best = min(best, bestSplit(rest[1:], takes, loads))
		loads[i] -= takes[rest[0].ID]
	}
	return best
}

// Whatever order the scenarios come in, and however often one asks, a shard has
// the same; one that no earlier run had is in exactly one too.
func TestShardsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "shards")
		var all []*scenario.Scenario
		takes := map[string]float64{}
		for i := range rapid.IntRange(0, 20).Draw(t, "scenarios") {
			id := fmt.Sprintf("s%02d", i)
			all = append(all, &scenario.Scenario{ID: id})
			if rapid.Bool().Draw(t, "known") {
				takes[id] = float64(rapid.IntRange(1, 4).Draw(t, "seconds")) // ties
			}
		}
		shuffled := rapid.Permutation(all).Draw(t, "order")
		picked := 0
		for i := range n {
			one, other := ids(Shard{i, n}.Pick(all, takes)), ids(Shard{i, n}.Pick(shuffled, takes))
			if !slices.Equal(one, other) {
				t.Errorf("shard %d has %v, and in another order %v", i, one, other)
			}
			picked += len(one)
		}
		if picked != len(all) {
			t.Errorf("%d scenarios are in shards, of %d", picked, len(all))
		}
	})
}

// ids are sorted.
func ids(all []*scenario.Scenario) (ids []string) {
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return ids
}

// Where a control fails, shards put together give what one run gives, also of a check
// that passed at times.
func TestShardsInDoubt(t *testing.T) {
	repetition := func(verdicts ...string) judge.Judged {
		var j judge.Judged
		for i, v := range verdicts {
			j.Checks = append(j.Checks, report.Check{ID: fmt.Sprint("s/", i), Scenario: "s", Verdict: v, Reason: v})
		}
		return j
	}
	judged := func() [][]judge.Judged {
		return [][]judge.Judged{{
			repetition(verdict.Pass, verdict.Pass, verdict.Pass, verdict.Fail),
			repetition(verdict.Pass, verdict.Fail, verdict.Inconclusive, verdict.Fail),
		}}
	}
	cut := func(v string) []report.Control {
		return []report.Control{{Control: report.Cut, Subject: "a direct path", Verdict: v, Reason: "it was not seen"}}
	}
	one := judge.Results(judge.Run{Repeat: 2, Scenarios: []string{"s"}}, judged(), cut(verdict.Fail))
	about := judge.Run{Repeat: 2, Scenarios: []string{"s"}, Suite: []string{"s"}, Shard: "1/2"}
	first := judge.Results(about, judged(), cut(verdict.Pass))
	about.Scenarios, about.Shard = nil, "2/2"
	whole, err := report.Combine([]report.Results{first, judge.Results(about, nil, cut(verdict.Fail))})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one, whole); diff != "" {
		t.Errorf("(-one run, +shards):\n%s", diff)
	}
	var verdicts []string
	for _, c := range one.Checks {
		verdicts = append(verdicts, c.Verdict)
	}
	if want := []string{verdict.Inconclusive, verdict.Fail, verdict.Inconclusive, verdict.Fail}; !slices.Equal(verdicts, want) {
		t.Errorf("verdicts %v, want %v", verdicts, want)
	}
}
