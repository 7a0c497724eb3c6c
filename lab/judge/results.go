package judge

import (
	"errors"
	"path/filepath"

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

// Report judges a run's folder from its files alone. Its error names every
// file that is missing, cut off or not what a run writes.
func Report(dir string) (report.Results, error) {
	run, err := readRun(dir)
	if err != nil {
		return report.Results{}, err
	}
	var wrong []error
	judged := make([][]Judged, len(run.Scenarios))
	for i, id := range run.Scenarios {
		for n := range run.Repeat {
			name := Folder(id, n, run.Repeat)
			one, err := Scenario(filepath.Join(dir, name), id, name)
			wrong = append(wrong, err)
			judged[i] = append(judged[i], one)
		}
	}
	cut, err := LabControl(filepath.Join(dir, ControlFolder))
	if err = errors.Join(append(wrong, err)...); err != nil {
		return report.Results{}, err
	}
	return Results(run, judged, cut), nil
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
