package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/verdict"
)

// shard makes the results of shard i of n of the suite a, b, c, d.
func shard(i, n int, ids ...string) Results {
	r := Results{Run: Run{
		Version: "v", Seed: 7, Repeat: 1, Suite: []string{"a", "b", "c", "d"}, Scenarios: ids, Shard: fmt.Sprintf("%d/%d", i, n),
		Started: time.Unix(int64(100-i), 0), Seconds: float64(i),
	}}
	r.Controls = append(r.Controls, Control{Control: Cut, Subject: "path", Verdict: verdict.Pass})
	for _, id := range ids {
		r.Checks = append(r.Checks, Check{ID: id + "/1", Scenario: id, Verdict: verdict.Pass}, Check{ID: id + "/2", Scenario: id, Verdict: verdict.NotOffered})
		r.Controls = append(r.Controls, Control{Control: Canary, Scenario: id, Verdict: verdict.Pass})
	}
	r.Run.Verdicts = Count(r.Checks)
	return r
}

func TestCombine(t *testing.T) {
	want := shard(3, 3, "a", "b", "c", "d")
	want.Run.Suite, want.Run.Scenarios, want.Run.Shard = nil, nil, ""
	got, err := Combine([]Results{shard(2, 3, "a", "d"), shard(3, 3), shard(1, 3, "b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not what one run gives (-one, +combined):\n%s", diff)
	}
}

// A control that fails in one shard puts all of the run in doubt, as in one run.
func TestCombineDoubt(t *testing.T) {
	bad := shard(2, 2, "c", "d")
	bad.Controls[1].Verdict, bad.Controls[1].Reason = verdict.Fail, "it got through"
	got, err := Combine([]Results{shard(1, 2, "a", "b"), bad})
	if err != nil {
		t.Fatal(err)
	}
	if n := Count(got.Checks); n[verdict.Pass] != 0 || n[verdict.Inconclusive] != 4 || n[verdict.NotOffered] != 4 {
		t.Errorf("verdicts %v", n)
	}
}

func TestCombineRefuses(t *testing.T) {
	other, seed := shard(2, 2, "c"), shard(2, 2, "c")
	other.Run.Suite = []string{"x"}
	seed.Run.Seed++
	whole := shard(1, 2, "a")
	whole.Run.Shard = ""
	for want, shards := range map[string][]Results{
		"no shard":                               nil,
		"shard 2/3 is missing":                   {shard(1, 3), shard(3, 3)},
		"shard 1/2 twice":                        {shard(1, 2), shard(1, 2)},
		"shard 2/3 beside shard 1/2":             {shard(1, 2), shard(2, 3)},
		"shard 2/2 is of another suite":          {shard(1, 2), other},
		"the same seed, repetitions and version": {shard(1, 2), seed},
		"results of a whole run, not of a shard": {whole},
		"scenario c is in no shard: expected":    {shard(1, 2, "a", "b"), shard(2, 2, "d")},
		"scenario c is in 1/2 and 2/2: expected": {shard(2, 2, "a", "c"), shard(1, 2, "b", "c", "d")},
		"scenario x of shard 1/2 is not in its":  {shard(1, 2, "a", "b", "x"), shard(2, 2, "c", "d")},
	} {
		if _, err := Combine(shards); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestReadResults(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cut": `{"run": {"repe`, "other": `{"x": 1}`, "two": `{"run": {"repeat": 1}} {}`} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadResults(file); err == nil || !strings.Contains(err.Error(), "not the results of a run") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What kubectl logs gives of all pods of a job: pod after pod, stdout and stderr
// mixed, a lost pod among them.
func TestReadShardsOfLog(t *testing.T) {
	var log strings.Builder
	for i, s := range []Results{shard(1, 3, "a"), shard(2, 3), shard(3, 3, "b", "c", "d")} {
		var out strings.Builder
		if err := s.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(out.String(), "\n")
		fmt.Fprintf(&log, "[  6.0s] 1/2 open  5 pass\n%s[  7.4s] 2/2 open  5 pass\n%s", lines[0], strings.Join(lines[1:], ""))
		if i == 0 {
			log.WriteString("gauntlet: interrupted (terminated)\n")
		}
	}
	file := filepath.Join(t.TempDir(), "shards.log")
	if err := os.WriteFile(file, []byte(log.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	shards, err := ReadShards(file)
	if err != nil || len(shards) != 3 {
		t.Fatalf("%d shards, %v", len(shards), err)
	}
	whole, err := Combine(shards)
	if err != nil || len(whole.Checks) != 8 {
		t.Errorf("%d checks, %v", len(whole.Checks), err)
	}
	if _, err := ReadResults(file); err == nil || !strings.Contains(err.Error(), "the results of 3 runs") {
		t.Errorf("three results as one: %v", err)
	}
	for _, text := range []string{"", "[  7.4s] 2/2\n", "{\n}\n", "{\n  \"run\": {\n"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if all, err := ReadShards(file); err == nil || !strings.Contains(err.Error(), "not the results of a run") {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
}
