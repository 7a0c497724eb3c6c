package judge

import (
	"errors"
	"path/filepath"
	"runtime"

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
// missing, cut off or not what a run writes; where it concerns the evidence
// alone, there are results too: all inconclusive.
func Scenario(dir, id, name string) (Judged, error) {
	r, err := Read(dir, id)
	if err != nil {
		return Judged{}, err
	}
	checks := r.Judge(name)
	return Judged{Checks: checks, Controls: r.controls(checks)}, r.Unreadable
}

// Report judges a run's folder from its files alone. Its error names the files
// that are missing, cut off or not what a run writes.
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
	if err := errors.Join(wrong...); err != nil {
		return report.Results{}, err
	}
	return Results(run, judged, cut), nil
}

// repetitions judges all runs of a scenario, up to the first that it can't.
func (r Run) repetitions(dir string, scenario int) (all []Judged, err error) {
	id := r.Scenarios[scenario]
	for n := range r.Repeat {
		name := Folder(id, n, r.Repeat)
		one, err := Scenario(filepath.Join(dir, name), id, name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
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
				same = append(same, one.Checks[c].Doubted(doubt))
			}
			r.Checks = append(r.Checks, report.Merge(same))
		}
	}
	r.Run = run.about(r.Checks)
	return r
}
