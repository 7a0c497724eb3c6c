// Package report is what a run says in the end: records for programs, a table
// for people, JUnit for build servers.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"gauntlet/lab/media"
	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

// Results are a whole run's, the content of results.json.
type Results struct {
	Run    Run     `json:"run"`
	Checks []Check `json:"checks"`
	// Controls are the negative controls. One that fails makes every pass of
	// the run inconclusive.
	Controls []Control `json:"controls"`
}

// Run says how the checks came about.
type Run struct {
	Version  string         `json:"version"`
	Started  time.Time      `json:"started"`
	Seconds  float64        `json:"seconds"`
	Seed     uint64         `json:"seed"`   // of all randomness of the lab
	Repeat   int            `json:"repeat"` // how often every scenario ran
	Kernel   string         `json:"kernel"`
	Verdicts map[string]int `json:"verdicts"`
	// Shard is "I/N" where this is one part of a suite, and Suite the IDs of all
	// the suite's scenarios, in order; Scenarios are those of this part.
	Shard     string   `json:"shard,omitempty"`
	Suite     []string `json:"suite,omitempty"`
	Scenarios []string `json:"scenarios,omitempty"`
}

// Check is one function between two ends, judged.
type Check struct {
	ID        string   `json:"id"`
	Claims    []string `json:"claims"` // of the literature, that the check reproduces
	Scenario  string   `json:"scenario"`
	Function  string   `json:"function"`
	CallerBox string   `json:"caller_box"` // the boxes in front of the caller, innermost first
	CalleeBox string   `json:"callee_box"`

	Expected verdict.Expectation `json:"expected"`
	Observed *path.Record        `json:"observed"`            // nil where nothing was driven
	Claimed  *path.Record        `json:"claimed"`             // nil where the node claims nothing
	Theory   *oracle.Function    `json:"theory"`              // nil where theory says nothing
	NoTheory string              `json:"no_theory,omitempty"` // why it says nothing

	Verdict string  `json:"verdict"`
	Reason  string  `json:"reason"`
	Seconds float64 `json:"seconds"`
	// Times are how long it took until the payload got through, nil where it
	// didn't.
	Times *path.Times `json:"times,omitempty"`
	// Media is what was measured of a call's media, nil where none came.
	Media *media.Measure `json:"media,omitempty"`
	// Rates are those of all repetitions, nil where there is one only.
	Rates *Rates   `json:"rates,omitempty"`
	Notes []string `json:"notes,omitempty"` // the reasoning from the wire, step by step
	// Drops are the packets between the two ends that boxes dropped, with what
	// would have let each in; MoreDrops is how many more there were.
	Drops     []path.Drop `json:"drops,omitempty"`
	MoreDrops int         `json:"more_drops,omitempty"`
	// Evidence are files in the report folder; none where no folder was asked
	// for.
	Evidence []string `json:"evidence"`
}

// Verdicts are all of them, in the order in which they are counted.
var Verdicts = []string{verdict.Pass, verdict.Fail, verdict.Inconclusive, verdict.NotOffered}

// Count counts the checks of each verdict.
func Count(checks []Check) map[string]int {
	n := map[string]int{}
	for _, v := range Verdicts {
		n[v] = 0
	}
	for _, c := range checks {
		n[c.Verdict]++
	}
	return n
}

// The exit statuses of a run.
const (
	ExitPass         = 0
	ExitFail         = 1
	ExitBadUsage     = 2
	ExitInconclusive = 3
)

// ExitStatus is that of a run with these checks. What is not offered decides
// nothing, but a run in which nothing passed proves nothing either.
func ExitStatus(checks []Check) int {
	n := Count(checks)
	switch {
	case n[verdict.Fail] > 0:
		return ExitFail
	case n[verdict.Inconclusive] > 0 || n[verdict.Pass] == 0:
		return ExitInconclusive
	}
	return ExitPass
}

// indent is that of a line of results.json.
const indent = "  "

// WriteJSON writes results.json.
func (r Results) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", indent)
	return e.Encode(r)
}

// Merge makes one check of the results of several repetitions: one that passes
// sometimes and fails sometimes is a flake and fails. What is inconclusive, or not
// offered, at times says nothing of the others.
func Merge(repetitions []Check) Check {
	merged := repetitions[0]
	if len(repetitions) == 1 {
		return merged
	}
	n := Count(repetitions)
	for _, worst := range []string{verdict.Fail, verdict.Inconclusive, verdict.NotOffered} {
		if n[worst] > 0 {
			merged = repetitions[slices.IndexFunc(repetitions, func(c Check) bool { return c.Verdict == worst })]
			break
		}
	}
	merged.Rates = rates(repetitions)
	switch passed := n[verdict.Pass] > 0; {
	case merged.Verdict == verdict.Pass || merged.Rates == nil:
	case passed && merged.Verdict == verdict.Fail:
		merged.Reason = fmt.Sprintf("flake: %s; one that failed: %s", merged.Rates.Sentence(), merged.Reason)
	case passed && merged.Verdict == verdict.NotOffered:
		merged.Verdict = verdict.Fail
		merged.Reason = fmt.Sprintf("flake: %s", merged.Rates.Sentence())
	default:
		merged.Reason = fmt.Sprintf("%s (%s)", merged.Reason, merged.Rates.Sentence())
	}
	return merged
}
