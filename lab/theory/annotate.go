package theory

import (
	"slices"

	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// Annotate compares all checks of a scenario, in the order of its steps, with
// theory. Where theory can't be asked, nothing passes.
func Annotate(s *scenario.Scenario, checks []report.Check) {
	steps, err := Checks(s)
	for n, a := range slices.Concat(steps...) {
		if n < len(checks) {
			Compare(&checks[n], a)
		}
	}
	for n := range checks {
		if err != nil && checks[n].Verdict == verdict.Pass {
			checks[n].Verdict, checks[n].Reason = verdict.Inconclusive, "theory can't be asked: "+err.Error()
		}
	}
}
