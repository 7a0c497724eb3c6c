// Package judge computes verdicts from what a run left in its folder, and from
// nothing else: the same files always give the same results. A run that has
// just ended is judged by the same code.
//
// # The report folder
//
//   - run.json: one [Run]: what the results say of the run as a whole, and which
//     scenarios there are.
//   - results.json: what was judged; it is not read again.
//   - ID or, with --repeat, ID.1, ID.2, …: a folder for each run of a scenario,
//     with the scenario's source (scenario.yaml), what became of its steps
//     (driven.json, one [Driven]), the measurements of its boxes
//     (certificates.json), the evidence (package evidence) and the nodes' logs.
//   - lab-control: the same for the lab's own control, [ControlScenario].
package judge

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/theory"
	"gauntlet/lab/verdict"
)

// Recording is one run of one scenario, as its folder holds it.
type Recording struct {
	Scenario     *scenario.Scenario
	Driven       Driven
	Certificates []certify.Certificate
	// Evidence is nil where nothing was recorded, or where Unreadable says why
	// it can't be read.
	Evidence   *evidence.Evidence
	Unreadable error

	dir string
}

// ErrEvidence says that the evidence of a folder can't be read, although the rest
// of it can: there are results, all inconclusive.
var ErrEvidence = errors.New("the evidence can't be read")

// Read reads the folder of a scenario, whose ID it is given. The error is for
// what says which checks there are; evidence that can't be read is in the
// recording.
func Read(dir, id string) (*Recording, error) {
	r := &Recording{dir: dir}
	source, err := readFile(filepath.Join(dir, ScenarioFile))
	if err != nil {
		return nil, err
	}
	if r.Scenario, err = scenario.Parse(id+".yaml", source); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ScenarioFile), err)
	}
	file := filepath.Join(dir, DrivenFile)
	if err := readJSON(file, &r.Driven); err != nil {
		return nil, err
	}
	if err := r.Driven.check(r.Scenario); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !r.Driven.Recorded {
		return r, nil
	}
	if r.Evidence, err = evidence.Read(dir); err == nil {
		err = readJSON(filepath.Join(dir, CertificatesFile), &r.Certificates)
	}
	if err == nil {
		err = r.Driven.checkExchanges(r.Evidence)
	}
	if err != nil {
		r.Evidence, r.Unreadable = nil, err
	}
	return r, nil
}

// check says where the checks are not those of the scenario.
func (d Driven) check(s *scenario.Scenario) error {
	planned := slices.Concat(Plan(s)...)
	if len(planned) != len(d.Checks) {
		return fmt.Errorf("%d checks; the scenario has %d", len(d.Checks), len(planned))
	}
	for n, p := range planned {
		if d.Checks[n].ID != p.Check.ID {
			return fmt.Errorf("check %d is %q; the scenario has %q", n+1, d.Checks[n].ID, p.Check.ID)
		}
	}
	return nil
}

// checkExchanges says which check has an exchange that isn't there.
func (d Driven) checkExchanges(ev *evidence.Evidence) error {
	for _, c := range d.Checks {
		if c.Exchange != NotDriven && (c.Exchange < 0 || c.Exchange >= len(ev.Exchanges)) {
			return fmt.Errorf("%s: %s has exchange %d, and there are %d", evidence.ExchangesFile, c.ID, c.Exchange, len(ev.Exchanges))
		}
	}
	return nil
}

// Judge gives every check of the recording its verdict. folder is the name by
// which the checks name their evidence, "" to name none.
func (r *Recording) Judge(folder string) []report.Check {
	var checks []report.Check
	for step, planned := range Plan(r.Scenario) {
		for _, p := range planned {
			d := r.Driven.Checks[len(checks)]
			c := r.check(p, d, step+1)
			if folder != "" && d.Exchange != NotDriven {
				for _, f := range evidenceFiles {
					c.Evidence = append(c.Evidence, filepath.Join(folder, f))
				}
			}
			checks = append(checks, c)
		}
	}
	theory.Annotate(r.Scenario, checks)
	return checks
}

// check judges a check of a step, counted from 1.
func (r *Recording) check(p Planned, d DrivenCheck, step int) report.Check {
	c := p.Check
	c.CallerBox, c.CalleeBox, c.Seconds = d.CallerBox, d.CalleeBox, d.Seconds
	switch {
	case d.NotOffered:
		c.Verdict, c.Reason = verdict.NotOffered, "the node does not offer it"
	case d.Exchange == NotDriven && d.Problem == "" && !r.Driven.Stood:
		c.Verdict, c.Reason = verdict.Inconclusive, "the lab does not stand: "+r.Driven.Broken
	case d.Exchange == NotDriven && d.Problem == "":
		c.Verdict, c.Reason = verdict.Fail, "not driven: "+r.Driven.Broken
	case d.Exchange == NotDriven:
		c.Verdict, c.Reason = verdict.Fail, d.Problem
	case r.Evidence == nil:
		c.Verdict, c.Reason = verdict.Inconclusive, r.unreadable()
	default:
		r.fromTheWire(p, d, step, &c)
	}
	return c
}

// unreadable is why there is no evidence, the same wherever the folder is.
func (r *Recording) unreadable() string {
	reason := fmt.Sprintf("%v: %v", ErrEvidence, r.Unreadable)
	if r.dir != "" {
		reason = strings.ReplaceAll(reason, r.dir+string(filepath.Separator), "")
	}
	return reason
}

// fromTheWire judges a check that was driven.
func (r *Recording) fromTheWire(p Planned, d DrivenCheck, step int, c *report.Check) {
	v := verdict.Check{
		Expected: c.Expected, Claimed: d.Claimed, NodeError: d.NodeError,
		Evidence: r.Evidence, Exchange: r.window(d),
	}
	v.Finding = path.Find(r.Evidence, v.Exchange)
	if whole := r.Evidence.Exchanges[d.Exchange]; p.Media && (v.Finding.Record.Path != path.Failed || len(whole.Events) > 0) {
		v.Media = media.Of(r.Evidence, whole)
		c.Media = v.Media
	}
	hosts := []string{p.Caller, p.Callee}
	for _, leg := range v.Finding.Record.Legs {
		hosts = append(hosts, leg.From, leg.To)
	}
	if p.After {
		step++ // what the step has made of boxes counts
	}
	v.Unseen = slices.Concat(d.Unseen, r.Driven.Unsure, r.uncertified(hosts, step))
	unsettled := ""
	if p.After {
		if unsettled = r.after(&v, d); unsettled != "" {
			v.Finding.Inconclusive = "" // what it was in so short a time doesn't matter
		}
	}
	c.Observed, c.Claimed, c.Notes = &v.Finding.Record, d.Claimed, v.Finding.Notes
	if !p.After {
		c.Times = v.Finding.Times
	}
	c.Drops, c.MoreDrops = v.Finding.Drops, v.Finding.MoreDrops
	if d.Problem != "" { // whatever could be seen
		c.Verdict, c.Reason = verdict.Fail, d.Problem
		return
	}
	c.Verdict, c.Reason = verdict.Judge(v)
	if unsettled != "" && c.Verdict != verdict.Inconclusive {
		c.Verdict, c.Reason = verdict.Fail, unsettled
	}
	if v.NodeError != "" {
		c.Reason += "; the node says: " + v.NodeError
	}
}

// uncertified says why the boxes in front of some hosts can't be relied on at a
// step, none if all of them are what they say.
func (r *Recording) uncertified(hosts []string, step int) []string {
	var boxes []string
	for _, host := range hosts {
		boxes = append(boxes, r.Evidence.World.Chain(host)...)
	}
	return append(r.unmeasured(boxes, step), certify.Failed(r.Certificates, boxes, step)...)
}

// unmeasured says which of some boxes have no certificate of what they are as the
// scenario begins, or of what a step before this one made of them.
func (r *Recording) unmeasured(boxes []string, step int) (reasons []string) {
	missing := func(box string, step int) bool {
		return slices.Contains(boxes, box) && !slices.ContainsFunc(r.Certificates, func(c certify.Certificate) bool {
			return c.Box == box && c.Step == step
		})
	}
	for _, b := range r.Evidence.World.Boxes {
		if missing(b.Name, 0) {
			reasons = append(reasons, b.Name+" has no certificate")
		}
	}
	for n, st := range r.Scenario.Steps[:step-1] {
		for _, v := range st.Interventions() {
			if v.Change != nil && missing(v.Change.Box, n+1) {
				reasons = append(reasons, fmt.Sprintf("%s, changed in step %d, has no certificate", v.Change.Box, n+1))
			}
		}
	}
	return reasons
}
