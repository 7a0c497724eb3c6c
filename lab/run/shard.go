package run

import (
	"cmp"
	"fmt"
	"slices"

	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
)

// Shard is one of the parts that a suite is split into: number Index, counted
// from 0, of Of. The zero value is the whole.
type Shard struct{ Index, Of int }

// ParseShard reads "I/N", with I from 1 to N.
func ParseShard(text string) (Shard, error) {
	var i, n int
	if parsed, err := fmt.Sscanf(text, "%d/%d", &i, &n); err != nil || parsed != 2 || fmt.Sprintf("%d/%d", i, n) != text || i < 1 || i > n {
		return Shard{}, fmt.Errorf("shard %q; expected I/N with I from 1 to N, such as 1/4", text)
	}
	return Shard{Index: i - 1, Of: n}, nil
}

// String is the shard as ParseShard reads it.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", s.Index+1, s.Of) }

// overhead is what a scenario takes beside its checks, in seconds: the lab, the
// nodes, the boxes' certificates, the quiet before each step.
const overhead = 1

// Durations are the seconds that each scenario took in an earlier run, by ID:
// those of its checks, and what it takes beside them.
func Durations(earlier report.Results) map[string]float64 {
	seconds := map[string]float64{}
	for _, c := range earlier.Checks {
		if _, ok := seconds[c.Scenario]; !ok {
			seconds[c.Scenario] = overhead
		}
		seconds[c.Scenario] += c.Seconds
	}
	return seconds
}

// Pick returns the scenarios of a shard, in their order. Every scenario is in
// exactly one shard, and the same scenarios and durations always give the same
// shards. The longest scenario goes first, each into the shard that has least so
// far; one that no earlier run had counts as the mean of the others.
func (s Shard) Pick(all []*scenario.Scenario, seconds map[string]float64) []*scenario.Scenario {
	if s.Of <= 1 {
		return all
	}
	mean, known := 0.0, 0
	for _, x := range all {
		if d, ok := seconds[x.ID]; ok {
			mean += d
			known++
		}
	}
	if mean = mean / float64(max(known, 1)); mean == 0 {
		mean = 1
	}
	takes := func(x *scenario.Scenario) float64 {
		if d, ok := seconds[x.ID]; ok {
			return d
		}
		return mean
	}
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *scenario.Scenario) int {
		return cmp.Or(cmp.Compare(takes(b), takes(a)), cmp.Compare(a.ID, b.ID))
	})
	load := make([]float64, s.Of)
	mine := map[string]bool{}
	for _, x := range order {
		least := slices.Index(load, slices.Min(load))
		load[least] += takes(x)
		mine[x.ID] = least == s.Index
	}
	return slices.DeleteFunc(slices.Clone(all), func(x *scenario.Scenario) bool { return !mine[x.ID] })
}
