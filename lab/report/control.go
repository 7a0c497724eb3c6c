package report

import (
	"fmt"
	"strings"

	"gauntlet/lab/verdict"
)

// The kinds of control.
const (
	// Canary is a datagram of the lab's own that a box which blocks UDP must
	// stop, and that any other must let through.
	Canary = "canary"
	// Silent is that no relay carries any payload while the path is direct,
	// reversed or punched.
	Silent = "silent-relays"
	// Cut is a direct path of the lab's own that is cut, which the verdict must
	// follow.
	Cut = "cut"
)

// Control is a negative control: a check that the instrument itself works. Its
// verdict is pass, fail, or inconclusive where it could not be done for a
// reason that the checks beside it have too.
type Control struct {
	Control  string `json:"control"`            // Canary, Silent or Cut
	Scenario string `json:"scenario,omitempty"` // the folder of its evidence
	Subject  string `json:"subject"`            // the box, the check or the exchange
	// Step is the step that changed the box, after which the control was done,
	// counted from 1; 0 for a control of the lab as it begins.
	Step     int    `json:"step,omitempty"`
	Expected string `json:"expected"`
	Observed string `json:"observed"`
	Verdict  string `json:"verdict"`
	Reason   string `json:"reason,omitempty"` // "" for a pass
}

// String names the control.
func (c Control) String() string {
	text := c.Control + " of " + c.Subject
	if c.Scenario != "" {
		text += " in " + c.Scenario
	}
	if c.Step != 0 {
		text += fmt.Sprintf(", changed in step %d", c.Step)
	}
	return text
}

// Doubt says which controls failed, "" if none did: an instrument that fails a
// control can't show that anything passes.
func Doubt(controls []Control) string {
	var failed []string
	for _, c := range controls {
		if c.Verdict == verdict.Fail {
			failed = append(failed, fmt.Sprintf("%s: %s", c, c.Reason))
		}
	}
	if len(failed) == 0 {
		return ""
	}
	text := "a negative control failed: " + failed[0]
	if len(failed) > 1 {
		text += fmt.Sprintf("; and %d more", len(failed)-1)
	}
	return text
}

// Doubted is the check, of all its repetitions, in a run with that doubt: what passed
// is inconclusive. Its rates stay those of what each repetition showed.
func (c Check) Doubted(doubt string) Check {
	if doubt != "" && c.Verdict == verdict.Pass {
		c.Verdict, c.Reason = verdict.Inconclusive, doubt
	}
	return c
}

// describeControls counts the controls of each kind in a line, and gives each
// that did not hold a line of its own.
func describeControls(controls []Control) []string {
	var parts []string
	for _, kind := range []string{Canary, Silent, Cut} {
		held, all := 0, 0
		for _, c := range controls {
			if c.Control == kind {
				all++
				if c.Verdict == verdict.Pass {
					held++
				}
			}
		}
		if all > 0 {
			parts = append(parts, fmt.Sprintf("%s %d of %d", kind, held, all))
		}
	}
	lines := []string{"negative controls that held: " + strings.Join(parts, ", ")}
	if len(parts) == 0 {
		lines[0] = "negative controls: none"
	}
	for _, c := range controls {
		if c.Verdict != verdict.Pass {
			lines = append(lines, fmt.Sprintf("%s: %s: expected %s; %s", c, marks[c.Verdict].word, c.Expected, c.Reason))
		}
	}
	return lines
}
