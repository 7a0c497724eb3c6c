package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gauntlet/lab/verdict"
)

// Rates are how a check came out over all repetitions.
type Rates struct {
	// Runs are the repetitions that passed or failed. The others say nothing of how
	// often the check passes, and are counted apart.
	Runs         int `json:"runs"`
	Passes       int `json:"passes"`
	Inconclusive int `json:"inconclusive,omitempty"`
	NotOffered   int `json:"not_offered,omitempty"`
	// Interval is the Wilson score interval of the share of passes, at 95 %.
	Interval [2]float64 `json:"wilson_95"`
	// FirstPath and BestPath are the times to the first packet of the payload
	// at the callee, over whichever path and over the one that was found, of
	// all repetitions in which the payload got through; nil where none did.
	FirstPath *Spread `json:"first_path_seconds,omitempty"`
	BestPath  *Spread `json:"best_path_seconds,omitempty"`
	// Gap is the longest silence in a call's media, of all repetitions in which
	// some came; nil where none did.
	Gap *Spread `json:"gap_seconds,omitempty"`
}

// Spread is how a measured value is spread: nearest-rank percentiles, each of
// them a value that was measured.
type Spread struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

// z95 is the standard normal distribution's quantile at 0.975.
const z95 = 1.959963984540054

// Wilson is the score interval of a share at 95 %: E. B. Wilson, "Probable
// inference, the law of succession, and statistical inference", Journal of the
// American Statistical Association 22 (1927), pages 209 to 212. Without any
// runs it is everything, 0 to 1.
func Wilson(passes, runs int) (low, high float64) {
	if runs == 0 {
		return 0, 1
	}
	n, p := float64(runs), float64(passes)/float64(runs)
	middle := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	whole := 1 + z95*z95/n
	low, high = (middle-half)/whole, (middle+half)/whole
	switch passes { // where the formula's rounding would hide what is exact
	case 0:
		low = 0
	case runs:
		high = 1
	}
	return low, high
}

// spread is that of some values, nil if there are none.
func spread(values []float64) *Spread {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	rank := func(share float64) float64 {
		return values[max(int(math.Ceil(share*float64(len(values))))-1, 0)]
	}
	return &Spread{P50: rank(0.50), P95: rank(0.95), Max: rank(1)}
}

// rates are those of the repetitions of one check, nil where it was never
// offered.
func rates(repetitions []Check) *Rates {
	if !slices.ContainsFunc(repetitions, func(c Check) bool { return c.Verdict != verdict.NotOffered }) {
		return nil
	}
	n := Count(repetitions)
	r := &Rates{
		Runs: n[verdict.Pass] + n[verdict.Fail], Passes: n[verdict.Pass],
		Inconclusive: n[verdict.Inconclusive], NotOffered: n[verdict.NotOffered],
	}
	var first, best, gap []float64
	for _, c := range repetitions {
		if c.Times != nil {
			first, best = append(first, c.Times.First), append(best, c.Times.Best)
		}
		if c.Media != nil {
			gap = append(gap, c.Media.Gap)
		}
	}
	r.Interval[0], r.Interval[1] = Wilson(r.Passes, r.Runs)
	r.FirstPath, r.BestPath, r.Gap = spread(first), spread(best), spread(gap)
	return r
}

// Sentence is how many of the repetitions that say so passed, with the others
// beside: "2 of 2 passed, 1 inconclusive".
func (r Rates) Sentence() string {
	if r.Runs == 0 {
		return strings.TrimPrefix(r.others(), ", ")
	}
	return fmt.Sprintf("%d of %d passed", r.Passes, r.Runs) + r.others()
}

// others counts the repetitions that neither passed nor failed.
func (r Rates) others() (text string) {
	if r.Inconclusive > 0 {
		text += fmt.Sprintf(", %d inconclusive", r.Inconclusive)
	}
	if r.NotOffered > 0 {
		text += fmt.Sprintf(", %d not offered", r.NotOffered)
	}
	return text
}

// String is the share of passes with its interval, the median times to the first
// and to the best path, the median and the longest gap, and what is counted apart:
// "3/3 (.44-1) 52/52 ms, gap 25-31 ms, 1 inconclusive".
func (r Rates) String() string {
	text := fmt.Sprintf("%d/%d (%.2f-%.2f)", r.Passes, r.Runs, r.Interval[0], r.Interval[1])
	if r.FirstPath != nil {
		text += fmt.Sprintf(" %.0f/%.0f ms", r.FirstPath.P50*1000, r.BestPath.P50*1000)
	}
	if r.Gap != nil {
		text += fmt.Sprintf(", gap %.0f-%.0f ms", r.Gap.P50*1000, r.Gap.Max*1000)
	}
	return text + r.others()
}
