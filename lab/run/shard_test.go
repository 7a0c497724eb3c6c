package run

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
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
