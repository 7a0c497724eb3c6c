package tests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// alteration is something that happens to a report afterwards.
type alteration struct {
	name   string
	do     func(t *testing.T, dir string)
	status int
	// says is part of the message where the status is 2, and of the reason of a check
	// that has the verdict, if there is to be one.
	verdict, says string
}

// The folders and files that are altered below.
const (
	first    = "port-restricted.1"
	exchange = first + "/exchanges.jsonl"
)

var alterations = []alteration{
	{"results.json is gone, which is not read", remove("results.json"), report.ExitPass, "", ""},
	{"run.json is gone", remove("run.json"), report.ExitBadUsage, "", "is not the report of a run that ended: it has no run.json"},
	{"run.json is cut", cut("run.json", 20), report.ExitBadUsage, "", "run.json: cut off"},
	{"a scenario is gone", remove(first), report.ExitBadUsage, "", first + "/scenario.yaml: missing"},
	{"a scenario's source is not one", write(first+"/scenario.yaml", "topology: {hots: {}}"), report.ExitBadUsage, "", `unknown key "hots"`},
	{"driven.json is gone", remove(first + "/driven.json"), report.ExitBadUsage, "", "driven.json: missing"},
	{"driven.json is cut", cut(first+"/driven.json", 100), report.ExitBadUsage, "", "driven.json: cut off"},
	{"driven.json has another check", replace(first+"/driven.json", `"port-restricted/search"`, `"port-restricted/look"`), report.ExitBadUsage, "", `check 3 is "port-restricted/look"; the scenario has "port-restricted/search"`},
	{"the capture is gone", remove(first + "/capture.pcapng"), report.ExitBadUsage, verdict.Inconclusive, "capture.pcapng: no such file"},
	{"an exchange is gone", cutLine(exchange), report.ExitBadUsage, verdict.Inconclusive, "exchanges.jsonl: port-restricted/call/media has exchange 4, and there are 4"},
	{"a certificate is no certificate", write(first+"/certificates.json", `[{"boxen": 1}]`), report.ExitBadUsage, verdict.Inconclusive, `certificates.json: json: unknown field "boxen"`},
	{"the lab's own control is gone", remove("lab-control"), report.ExitBadUsage, "", "lab-control/scenario.yaml: missing"},

	{"the losses are gone", remove(first + "/losses.json"), report.ExitInconclusive, verdict.Inconclusive, "the recording did not end: losses.json is missing"},
	{"the capture is cut", cut(first+"/capture.pcapng", 1001), report.ExitInconclusive, verdict.Inconclusive, "capture.pcapng ends inside a packet"},
	{"a drop is gone", cutLine(first + "/drops.jsonl"), report.ExitInconclusive, verdict.Inconclusive, "drops.jsonl holds"},
	{"a table dump is gone", cutLine(first + "/conntrack.jsonl"), report.ExitInconclusive, verdict.Inconclusive, "conntrack.jsonl holds"},
	{"a box has no certificate", write(first+"/certificates.json", `[]`), report.ExitInconclusive, verdict.Inconclusive, "home-a has no certificate; home-b has no certificate"},
	{"a certificate is failed", replace(first+"/certificates.json", `"differences": null`, `"differences": ["filtering: nonsense"]`), report.ExitInconclusive, verdict.Inconclusive, "filtering: nonsense"},

	{"the payload was larger", replace(exchange, `"payload":`, `"payload":9`), report.ExitFail, verdict.Fail, "the wire shows failed"},
	{"another path was expected", replace(first+"/scenario.yaml", "path: punched", "path: reversed"), report.ExitFail, verdict.Fail, "flake: 1 of 2 passed; one that failed: expected reversed"},
	{"another path was claimed", replace(first+"/driven.json", `"path": "punched"`, `"path": "direct"`), report.ExitFail, verdict.Fail, "the node claims direct ("},

	{"the lab's own path was not cut", replace("lab-control/exchanges.jsonl", `"payload":907`, `"payload":0`), report.ExitInconclusive, verdict.Inconclusive, "a negative control failed: cut of a direct path"},
	{"a blocking box let a canary out", replace("login-blocked.1/scenario.yaml", "preset: login-blocked", "preset: login-blocked, block: [udp]"), report.ExitInconclusive, verdict.Inconclusive, "a negative control failed: canary of office in login-blocked.1"},
}

// A run's verdicts come out again from its files alone, byte for byte, and
// differently once these are altered.
func TestJudge(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "report")
	o := do(t, "run", "--only", "P-L2,P-S2", "--repeat", "2", "--drops", "-o", dir)
	if o.status != report.ExitPass {
		t.Fatalf("run: exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if again := do(t, "judge", dir, "--format", "json"); again.status != o.status || again.stdout != string(stored) {
		t.Errorf("judged again: exit status %d, and results that differ from results.json\n%s%s", again.status, again.stdout, again.stderr)
	}
	if again := do(t, "judge", dir, "--drops"); again.stdout != o.stdout {
		t.Errorf("the table again:\n%s\nwas:\n%s", again.stdout, o.stdout)
	}
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if again := do(t, "judge", moved, "--format", "json"); again.stdout != string(stored) {
		t.Error("a folder that was moved has other results")
	}
	var r report.Results
	if err := json.Unmarshal(stored, &r); err != nil {
		t.Fatal(err)
	}
	checkRepeated(t, r)
	for _, a := range alterations {
		t.Run(a.name, func(t *testing.T) { a.check(t, dir) })
	}
}

// A shard that has nothing to run leaves a report too, and so does a run whose
// evidence can't be read: judged again, each gives what it gave.
func TestJudgeLittle(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	o := do(t, "run", "--only", "P-L2", "--shard", "2/2", "-o", empty, "--format", "json")
	if again := do(t, "judge", empty, "--format", "json"); o.status != report.ExitPass || again.status != o.status || again.stdout != o.stdout {
		t.Errorf("an empty shard: exit status %d, judged again %d\n%s%s", o.status, again.status, o.stderr, again.stderr)
	}
	place := func() string {
		dir := filepath.Join(t.TempDir(), "report")
		if err := os.CopyFS(dir, os.DirFS(empty)); err != nil {
			t.Fatal(err)
		}
		remove("lab-control/capture.pcapng")(t, dir)
		return dir
	}
	one, other := do(t, "judge", place(), "--format", "json"), do(t, "judge", place(), "--format", "json")
	const want = "whole: the evidence can't be read: read evidence: open capture.pcapng: no such file or directory"
	if one.stdout != other.stdout || one.status != report.ExitBadUsage || !strings.Contains(one.stdout, want) {
		t.Errorf("exit status %d, want %q in the same results wherever they are\n%s\n%s%s", one.status, want, one.stdout, other.stdout, one.stderr)
	}
}

// check judges a report once it has been altered.
func (a alteration) check(t *testing.T, dir string) {
	t.Helper()
	altered := filepath.Join(t.TempDir(), "altered")
	if err := os.CopyFS(altered, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	a.do(t, altered)
	o := do(t, "judge", altered, "--format", "json")
	if o.status != a.status {
		t.Fatalf("exit status %d, want %d\n%s%s", o.status, a.status, o.stdout, o.stderr)
	}
	if o.status == report.ExitBadUsage {
		if !strings.Contains(o.stderr, a.says) || o.stdout != "" && a.verdict == "" {
			t.Errorf("stderr %q, want %q; stdout %q", o.stderr, a.says, o.stdout)
		}
		if a.verdict == "" {
			return
		}
	}
	var r report.Results
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatal(err)
	}
	found := a.verdict == ""
	var reasons []string
	for _, c := range r.Checks {
		reasons = append(reasons, c.Verdict+": "+c.Reason)
		found = found || c.Verdict == a.verdict && strings.Contains(c.Reason, a.says)
	}
	if !found {
		t.Errorf("no check is %s for %q\n%s", a.verdict, a.says, strings.Join(reasons, "\n"))
	}
}

// checkRepeated checks what only a run of two scenarios, twice each, shows.
func checkRepeated(t *testing.T, r report.Results) {
	t.Helper()
	punched := false
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass {
			continue
		}
		if c.Rates == nil || c.Rates.Runs != 2 || c.Rates.Passes != 2 || c.Rates.FirstPath == nil {
			t.Errorf("%s: rates %+v", c.ID, c.Rates)
			continue
		}
		if p := c.Rates.FirstPath; p.P50 <= 0 || p.P50 > p.P95 || p.P95 > 10 || p.P50 > c.Rates.BestPath.P50 {
			t.Errorf("%s: first path %+v, best %+v", c.ID, p, c.Rates.BestPath)
		}
		if c.ID == "port-restricted/search" {
			punched = len(c.Drops) > 0 && strings.Contains(c.Drops[0].LetIn, "first (address-and-port-dependent filtering)")
		}
	}
	if !punched {
		t.Error("no drop of the punched search says what would have let it in")
	}
	kinds := map[string]int{}
	for _, c := range r.Controls {
		kinds[c.Control]++
		if c.Verdict != verdict.Pass {
			t.Errorf("%s: %s: %s", c, c.Verdict, c.Reason)
		}
	}
	if kinds[report.Canary] != 6 || kinds[report.Silent] == 0 || kinds[report.Cut] != 1 {
		t.Errorf("controls %v", kinds)
	}
}

// A folder that holds no report is refused.
func TestJudgeNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Join(dir, "nowhere")} {
		if o := do(t, "judge", folder); o.status != report.ExitBadUsage || !strings.Contains(o.stderr, folder+" is not the report of a run that ended") {
			t.Errorf("%s: exit status %d: %s", folder, o.status, o.stderr)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(name, text string) func(*testing.T, string) {
	return edit(name, func(*testing.T, []byte) []byte { return []byte(text) })
}

// cut keeps the first so many bytes of a file.
func cut(name string, keep int) func(*testing.T, string) {
	return edit(name, func(t *testing.T, data []byte) []byte {
		if len(data) <= keep {
			t.Fatalf("%s has %d bytes", name, len(data))
		}
		return data[:keep]
	})
}

// cutLine takes the last line off a file.
func cutLine(name string) func(*testing.T, string) {
	return edit(name, func(t *testing.T, data []byte) []byte {
		end := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte("\n")), '\n')
		if len(data) == 0 {
			t.Fatalf("%s is empty", name)
		}
		return data[:end+1]
	})
}

func replace(name, old, by string) func(*testing.T, string) {
	return edit(name, func(t *testing.T, data []byte) []byte {
		if !bytes.Contains(data, []byte(old)) {
			t.Fatalf("%s holds no %q:\n%s", name, old, data)
		}
		return bytes.ReplaceAll(data, []byte(old), []byte(by))
	})
}

func edit(name string, change func(*testing.T, []byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		file := filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, change(t, data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
