package judge

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/report"
)

// Judged is one run of one scenario, judged.
type Judged struct {
	Checks   []report.Check
	Controls []report.Control
}

// Scenario judges the folder of one run of one scenario. name is that of the
// folder in the report, "" if none is kept. The error says which file is
// missing, cut off or not what a run writes; where it is ErrEvidence, there are
// results too: all inconclusive.
func Scenario(dir, id, name string) (Judged, error) {
	r, err := Read(dir, id)
	if err != nil {
		return Judged{}, err
	}
	checks := r.Judge(name)
	if r.Unreadable != nil {
		err = fmt.Errorf("%s: %w: %w", dir, ErrEvidence, r.Unreadable)
	}
	return Judged{Checks: checks, Controls: r.controls(checks)}, err
}

// Report judges a run's folder from its files alone. Its error names the files
// that are missing, cut off or not what a run writes; where it is ErrEvidence, there
// are results too, as the run itself gave them.
func Report(dir string) (report.Results, error) {
	run, err := readRun(dir)
	if err != nil {
		return report.Results{}, err
	}
	judged := make([][]Judged, len(run.Scenarios))
	wrong := make([]error, len(run.Scenarios)+1)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range run.Scenarios {
		group.Go(func() error {
			judged[i], wrong[i] = run.repetitions(dir, i)
			return nil
		})
	}
	group.Wait() // none returns an error
	cut, err := LabControl(filepath.Join(dir, ControlFolder))
	wrong[len(wrong)-1] = err
	if slices.ContainsFunc(wrong, fatal) {
		return report.Results{}, errors.Join(slices.DeleteFunc(wrong, func(err error) bool { return !fatal(err) })...)
	}
	return Results(run, judged, cut), errors.Join(wrong...)
}

// fatal says whether an error leaves nothing to judge.
func fatal(err error) bool { return err != nil && !errors.Is(err, ErrEvidence) }

// repetitions judges all runs of a scenario, up to the first that it can't.
func (r Run) repetitions(dir string, scenario int) (all []Judged, err error) {
	id := r.Scenarios[scenario]
	for n := range r.Repeat {
		name := Folder(id, n, r.Repeat)
		one, wrong := Scenario(filepath.Join(dir, name), id, name)
		if fatal(wrong) {
			return nil, wrong
		}
		err = errors.Join(err, wrong)
		all = append(all, one)
	}
	return all, err
}

// Results puts together what was judged by itself: the runs of each scenario,
// and the lab's own control.
func Results(run Run, scenarios [][]Judged, cut []report.Control) report.Results {
	controls := cut
	for _, repetitions := range scenarios {
		for _, one := range repetitions {
			controls = append(controls, one.Controls...)
		}
	}
	r := report.Results{Controls: controls}
	doubt := report.Doubt(controls)
	for _, repetitions := range scenarios {
		for c := range repetitions[0].Checks {
			var same []report.Check
			for _, one := range repetitions {
				same = append(same, one.Checks[c])
			}
			// In this order, which is that of shards put together too.
			r.Checks = append(r.Checks, report.Merge(same).Doubted(doubt))
		}
	}
	r.Run = run.about(r.Checks)
	return r
}
