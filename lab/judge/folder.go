package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
)

// The files of a report that are not package evidence's.
const (
	// RunFile, in the report folder, is a Run.
	RunFile = "run.json"
	// ResultsFile, in the report folder, is what was judged: a report.Results.
	ResultsFile = "results.json"
	// ScenarioFile, in the folder of a scenario, is the scenario's source.
	ScenarioFile = "scenario.yaml"
	// DrivenFile, in the folder of a scenario, is a Driven.
	DrivenFile = "driven.json"
	// CertificatesFile, in the folder of a scenario, is a list of
	// certify.Certificate.
	CertificatesFile = "certificates.json"
)

// evidenceFiles are what a check names as its evidence.
var evidenceFiles = []string{
	ScenarioFile, DrivenFile, evidence.WorldFile, evidence.CaptureFile, evidence.ConntrackFile,
	evidence.DropsFile, evidence.LossesFile, evidence.ExchangesFile, CertificatesFile,
}

// Run is what the results say of the whole run, beside what is judged.
type Run struct {
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"`
	Seed      uint64    `json:"seed"`
	Repeat    int       `json:"repeat"`
	Kernel    string    `json:"kernel"`
	Scenarios []string  `json:"scenarios"` // IDs, in the order of the results
	Shard     string    `json:"shard,omitempty"`
	Suite     []string  `json:"suite,omitempty"`
}

// Folder is the name of the folder of a scenario's repetition, of which the
// first is 0.
func Folder(id string, repetition, repeat int) string {
	if repeat <= 1 {
		return id
	}
	return fmt.Sprintf("%s.%d", id, repetition+1)
}

// Driven is what became of a scenario's steps, as far as the wire doesn't say
// it.
type Driven struct {
	// Recorded says that a recording was begun, so that its files must be there.
	Recorded bool `json:"recorded"`
	// Stood says that the lab stood and its nodes were to be started.
	Stood bool `json:"stood"`
	// Broken is why the driving ended early, "" if it didn't.
	Broken string `json:"broken,omitempty"`
	// Unsure says why everything in the scenario is inconclusive.
	Unsure []string `json:"unsure,omitempty"`
	// Checks are those of the scenario's steps, in the order of Plan.
	Checks []DrivenCheck `json:"checks"`
	// Canaries are datagrams that the lab sent through the boxes.
	Canaries []Canary `json:"canaries,omitempty"`
}

// NotDriven stands in place of an exchange's index.
const NotDriven = -1

// DrivenCheck is what became of one check.
type DrivenCheck struct {
	ID string `json:"id"`
	// CallerBox and CalleeBox are the boxes in front of the two ends at the
	// time, innermost first, by their labels.
	CallerBox string `json:"caller_box,omitempty"`
	CalleeBox string `json:"callee_box,omitempty"`
	// Exchange is the index in exchanges.jsonl, NotDriven if there is none.
	Exchange int `json:"exchange"`
	// Seconds is how long the function took.
	Seconds float64 `json:"seconds,omitempty"`
	// Claimed is the path that the node claims, nil if it claims nothing;
	// NodeError the error that it reported, NotOffered that it doesn't have
	// the function.
	Claimed    *path.Record `json:"claimed,omitempty"`
	NodeError  string       `json:"node_error,omitempty"`
	NotOffered bool         `json:"not_offered,omitempty"`
	// Unseen says what of this check could not be seen, one sentence each.
	Unseen []string `json:"unseen,omitempty"`
	// Problem is a failure that the wire knows nothing of.
	Problem string `json:"problem,omitempty"`
}

// WriteRun writes run.json.
func WriteRun(dir string, r Run) error { return writeJSON(filepath.Join(dir, RunFile), r) }

// WriteDriven writes driven.json.
func WriteDriven(dir string, d Driven) error { return writeJSON(filepath.Join(dir, DrivenFile), d) }

// WriteJSON writes another document of a scenario's folder.
func WriteJSON(dir, name string, v any) error { return writeJSON(filepath.Join(dir, name), v) }

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// maxDocument bounds a file that is read, in bytes.
const maxDocument = 64 << 20

// readJSON reads a document. Unknown keys are errors, and its error names the
// file.
func readJSON(file string, into any) error {
	data, err := readFile(file)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%s: cut off", file)
		}
		return fmt.Errorf("%s: %w", file, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one value", file)
	}
	return nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: missing", file)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%s: longer than %d bytes", file, maxDocument)
	}
	return data, nil
}

// readRun reads run.json of a report folder.
func readRun(dir string) (Run, error) {
	var r Run
	if _, err := os.Stat(filepath.Join(dir, RunFile)); errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s is not the report of a run that ended: it has no %s", dir, RunFile)
	}
	if err := readJSON(filepath.Join(dir, RunFile), &r); err != nil {
		return r, err
	}
	bad := func(format string, args ...any) (Run, error) {
		return r, fmt.Errorf("%s: %s", filepath.Join(dir, RunFile), fmt.Sprintf(format, args...))
	}
	if r.Repeat < 1 {
		return bad("repeat %d: expected 1 or more", r.Repeat)
	}
	if len(r.Scenarios) == 0 && r.Shard == "" { // one of many shards may be empty
		return bad("no scenarios")
	}
	for _, id := range r.Scenarios {
		if err := CheckID(id); err != nil {
			return bad("%v", err)
		}
	}
	return r, nil
}

// CheckID says what is wrong with a scenario's ID as the name of a folder in a
// report.
func CheckID(id string) error {
	switch {
	case id == ControlFolder:
		return fmt.Errorf("scenario %q: the name is that of the lab's own control; expected another", id)
	case id == "" || id != filepath.Base(id) || strings.HasPrefix(id, "."):
		return fmt.Errorf("scenario %q: expected the name of a folder, without a dot in front", id)
	}
	return nil
}

// about is the part of the results that is not judged.
func (r Run) about(checks []report.Check) report.Run {
	about := report.Run{
		Version: r.Version, Started: r.Started, Seconds: r.Seconds, Seed: r.Seed, Repeat: r.Repeat, Kernel: r.Kernel,
		Verdicts: report.Count(checks), Shard: r.Shard, Suite: r.Suite,
	}
	if r.Shard != "" {
		about.Scenarios = r.Scenarios
	}
	return about
}
