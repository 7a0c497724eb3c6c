package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"gauntlet/compose"
	"gauntlet/compose/composetest"
	"gauntlet/lab/judge"
	"gauntlet/lab/report"
)

// verdicts are what must be the same of a check wherever it was run.
func verdicts(r report.Results) (all []string) {
	for _, c := range r.Checks {
		line := c.ID + " " + c.Verdict
		if c.Observed != nil {
			line += " " + report.Describe(*c.Observed)
		}
		all = append(all, line)
	}
	return all
}

// The seed suite gives the same verdicts, check for check, in containers.
func TestContainersAgree(t *testing.T) {
	composetest.Engine(t)
	processes, _ := results(t)
	containers, o := results(t, "--backend", "docker")
	if diff := cmp.Diff(verdicts(processes), verdicts(containers)); diff != "" {
		t.Errorf("(-processes, +containers):\n%s\nstatus %d\n%s", diff, o.status, o.stderr)
	}
	t.Logf("processes %.1f s, containers %.1f s: %.2f times", processes.Run.Seconds, containers.Run.Seconds, containers.Run.Seconds/processes.Run.Seconds)
}

// containersOf are those of the runs that began after known was made.
func containersOf(t *testing.T, api *client.Client, known []string) []string {
	t.Helper()
	return listed(t, api, known, true)
}

// listed are the containers that run, or all of them.
func listed(t *testing.T, api *client.Client, known []string, ended bool) (names []string) {
	t.Helper()
	all, err := api.ContainerList(context.Background(), container.ListOptions{
		All: ended, Filters: filters.NewArgs(filters.Arg("label", compose.RunLabel)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		// Tests of other packages are told apart by the names of their runs, which
		// not all of their containers have in their own.
		test := strings.HasPrefix(c.Labels[compose.RunLabel], "gauntlet-test-")
		if name := strings.TrimPrefix(c.Names[0], "/"); !slices.Contains(known, name) && !test {
			names = append(names, name)
		}
	}
	return names
}

// SIGKILL of gauntlet: soon no container runs, and then none is left. The bound that
// is stated for the former, 5 s, is that of a machine which does nothing else: the time
// it took is told, and not judged.
func TestContainersEndWithKill(t *testing.T) {
	api := composetest.Engine(t)
	known := containersOf(t, api, nil)
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--backend", "docker", "--only", "open")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for len(containersOf(t, api, known)) < 5 {
		if t.Context().Err() != nil {
			t.Fatal("no containers appeared")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	killed := time.Now()
	wait := func(ended bool, bound time.Duration) {
		for names := listed(t, api, known, ended); len(names) > 0; names = listed(t, api, known, ended) {
			if time.Since(killed) > bound {
				t.Fatalf("%v are there %v after the kill (ended ones count: %v)", names, bound, ended)
			}
		}
	}
	wait(false, 30*time.Second)
	t.Logf("none runs %.1f s after the kill", time.Since(killed).Seconds())
	wait(true, time.Minute)
}

// SIGKILL of gauntlet while it asks the engine for containers: of those that the
// engine makes only then, none is left either.
func TestContainersEndWithEarlyKill(t *testing.T) {
	api := composetest.Engine(t)
	results(t, "--backend", "docker", "--only", "login-blocked") // the image is there
	known := containersOf(t, api, nil)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for range 6 { // each takes the watchdog's quiet time and more
		mark := fmt.Sprintf("GAUNTLET_TEST_MARK=%s-%d", t.Name(), random.Uint64())
		cmd := exec.Command(gauntlet, "run", "--backend", "docker", "--only", "open")
		cmd.Env = append(cmd.Environ(), mark)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
		<-timer.C // the moment of the kill is what is tested
		cmd.Process.Kill()
		cmd.Wait()
		vanished(t, func() string { return strings.Join(marked(t, mark), " ") }) // the watchdog too
		if names := containersOf(t, api, known); len(names) > 0 {
			t.Fatalf("%v are left", names)
		}
	}
}

// A container that is killed is a node that died: a failure that says so.
func TestContainerKilled(t *testing.T) {
	api := composetest.Engine(t)
	known := containersOf(t, api, nil)
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--backend", "docker", "--only", "open", "--format", "json")
	var stdout strings.Builder
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	victim := ""
	for victim == "" {
		for _, name := range containersOf(t, api, known) {
			if strings.HasSuffix(name, "-alice") && api.ContainerKill(t.Context(), name, "KILL") == nil {
				victim = name
			}
		}
		if t.Context().Err() != nil {
			t.Fatal("no container of alice's appeared")
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a run whose node was killed passes")
	}
	var r report.Results
	if err := json.Unmarshal([]byte(stdout.String()), &r); err != nil {
		t.Fatal(err)
	}
	if left := containersOf(t, api, known); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	for _, c := range r.Checks {
		if c.Verdict == "pass" && strings.HasPrefix(c.ID, "open/login/alice") {
			t.Errorf("%s passes without alice", c.ID)
		}
	}
}

// A suite on a swarm, with a task killed on the way, gives what one run gives.
func TestSwarm(t *testing.T) {
	composetest.Swarm(t)
	api := composetest.Engine(t)
	whole, _ := results(t)
	known := containersOf(t, api, nil)

	dir := t.TempDir()
	for _, name := range []string{judge.RunFile, judge.ResultsFile} { // of an earlier run
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd, stdout, stderr := begin(t, "run", "--swarm", "--replicas", "4", "--format", "json", "-o", dir)
	killed, lost := "", false
	for stderr.Scan() {
		t.Log(stderr.Text())
		lost = lost || strings.Contains(stderr.Text(), "] failed")
		if killed == "" && strings.HasSuffix(stderr.Text(), "] running") {
			if names := containersOf(t, api, known); len(names) > 0 && api.ContainerKill(t.Context(), names[0], "KILL") == nil {
				killed = names[0]
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit status %s", statusOf(err))
	}
	if killed == "" || !lost {
		t.Errorf("no task was lost: killed %q", killed)
	}
	var merged report.Results
	if err := json.Unmarshal(stdout.Bytes(), &merged); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(verdicts(whole), verdicts(merged)); diff != "" {
		t.Errorf("(-one run, +shards):\n%s", diff)
	}
	if diff := cmp.Diff(whole.Run.Verdicts, merged.Run.Verdicts); diff != "" {
		t.Errorf("counts (-one run, +shards):\n%s", diff)
	}
	if o := do(t, "judge", dir); o.status != report.ExitBadUsage || !strings.Contains(o.stderr, "it has no "+judge.RunFile) {
		t.Errorf("there is evidence of an earlier run: exit status %d\n%s", o.status, o.stderr)
	}
	if r, err := report.ReadResults(filepath.Join(dir, judge.ResultsFile)); err != nil || len(r.Checks) != len(merged.Checks) {
		t.Errorf("%d checks in the report folder, %v", len(r.Checks), err)
	}
	if len(whole.Controls) != len(merged.Controls) {
		t.Errorf("%d controls, in shards %d", len(whole.Controls), len(merged.Controls))
	}
	if left := containersOf(t, api, known); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestContainersRefused(t *testing.T) {
	if o := do(t, "run", "--backend", "podman"); o.status != report.ExitBadUsage || !strings.Contains(o.stderr, "expected process or docker") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
	composetest.Engine(t)
	image := file(t, "image.yaml", `
topology: {hosts: {alice: {}, bob: {}}}
nodes: {alice: {image: "nobody/has:this"}, bob: {image: "nobody/has:this"}}
steps: [{exchange: {caller: alice, callee: bob, function: echo}, expect: {path: direct}}]
`)
	for want, args := range map[string][]string{
		"expected --backend docker":            {"run", image},
		`has no image "nobody/has:this"`:       {"run", "--backend", "docker", image},
		"no node of the reference overlay":     {"run", "--swarm", "foreign/echo.yaml"},
		"expected it without --backend docker": {"run", "--swarm", "--backend", "docker"},
	} {
		if o := do(t, args...); o.status != report.ExitBadUsage || !strings.Contains(o.stderr, want) {
			t.Errorf("%v: status %d: %s", args, o.status, o.stderr)
		}
	}
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--backend", "docker", "--only", "open")
	cmd.Env = append(cmd.Environ(), "DOCKER_HOST=unix:///nowhere/docker.sock")
	if o := finish(t, cmd); o.status != report.ExitBadUsage || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "no Docker engine answers") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
}
