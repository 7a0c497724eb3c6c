package judge

import (
	"fmt"

	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// Planned is a check of a scenario before anything is driven.
type Planned struct {
	Check          report.Check
	Caller, Callee string // hosts
	// Media says that the check is of a call's media, After that it is of what
	// became of it after something happened: of the media of the check before.
	Media, After bool
}

// The parts of a call's media: until something happens, and from then on.
const (
	partMedia = "media"
	partAfter = "after"
)

// Plan makes the checks of a scenario by its steps, as they are if nothing is
// ever driven. A step by which the lab does something itself has
// none.
func Plan(s *scenario.Scenario) [][]Planned {
	all := make([][]Planned, len(s.Steps))
	seen := map[string]int{}
	for i := range s.Steps {
		all[i] = planStep(s, &s.Steps[i])
		for n := range all[i] { // a step that comes again is the second, third, …
			id := &all[i][n].Check.ID
			if seen[*id]++; seen[*id] > 1 {
				*id = fmt.Sprintf("%s.%d", *id, seen[*id])
			}
		}
	}
	return all
}

func planStep(s *scenario.Scenario, st *scenario.Step) []Planned {
	one := func(part, caller, callee string, expected verdict.Expectation) Planned {
		c := report.Check{
			ID: s.ID + "/" + st.Label(), Scenario: s.ID, Function: st.Kind(),
			Claims: append([]string{}, s.Claimed(st)...), Expected: expected, Evidence: []string{},
		}
		if part != "" {
			c.ID += "/" + part
		}
		if st.Exchange != nil {
			c.Function = st.Exchange.Function
		} else if st.Call != nil {
			c.Function = "call " + part
			if part == partAfter {
				c.Function = "call " + partMedia
			}
		}
		return Planned{Check: c, Caller: caller, Callee: callee, Media: part == partMedia || part == partAfter, After: part == partAfter}
	}
	switch {
	case st.Login != nil:
		var all []Planned
		for _, name := range st.Login {
			all = append(all, one(name, name, s.Holding("login")[0], st.Expect.Expectation))
		}
		return all
	case st.Call != nil:
		all := []Planned{
			one("signalling", st.Call.Caller, st.Call.Callee, *st.Expect.Signalling),
			one(partMedia, st.Call.Caller, st.Call.Callee, *st.Expect.Media),
		}
		if st.Expect.After != nil {
			all = append(all, one(partAfter, st.Call.Caller, st.Call.Callee, *st.Expect.After))
		}
		return all
	case st.Search != nil:
		return []Planned{one("", st.Search.Caller, st.Search.Callee, st.Expect.Expectation)}
	case st.Presence != nil:
		return []Planned{one("", st.Presence.Caller, st.Presence.Callee, st.Expect.Expectation)}
	case st.Exchange != nil:
		return []Planned{one("", st.Exchange.Caller, st.Exchange.Callee, st.Expect.Expectation)}
	case st.Conference != nil:
		return []Planned{one("", st.Conference.Starter, st.Conference.Members[0], st.Expect.Expectation)}
	}
	return nil // the lab does something, and nothing is judged
}
