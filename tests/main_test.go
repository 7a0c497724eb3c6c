package tests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/report"
)

// gauntlet is the binary under test, built once.
var gauntlet string

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		if fault, ok := strings.CutPrefix(os.Args[1], faultyPrefix); ok {
			faultyNode(fault) // this process is a node in a lab
			return
		}
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gauntlet-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for tests as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	gauntlet = filepath.Join(dir, "gauntlet")
	build := exec.Command("go", "build", "-trimpath", "-o", gauntlet, "gauntlet/cmd/gauntlet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build gauntlet: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// output is what a command left behind.
type output struct {
	status         int
	stdout, stderr string
}

// do runs gauntlet with arguments.
func do(t testing.TB, args ...string) output {
	t.Helper()
	return finish(t, exec.CommandContext(t.Context(), gauntlet, args...))
}

func finish(t testing.TB, cmd *exec.Cmd) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// begin starts gauntlet with arguments. What it says while it runs is to be read
// from stderr until its end; stdout is whole after Wait.
func begin(t testing.TB, args ...string) (cmd *exec.Cmd, stdout *bytes.Buffer, stderr *bufio.Scanner) {
	t.Helper()
	cmd, stdout = exec.CommandContext(t.Context(), gauntlet, args...), &bytes.Buffer{}
	cmd.Stdout = stdout
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdout, bufio.NewScanner(said)
}

// results runs scenarios and returns what results.json says.
func results(t testing.TB, args ...string) (report.Results, output) {
	t.Helper()
	o := do(t, append([]string{"run", "--format", "json"}, args...)...)
	var r report.Results
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v\nstatus %d, stdout:\n%s\nstderr:\n%s", err, o.status, o.stdout, o.stderr)
	}
	return r, o
}

// file writes a file into a folder of the test's own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// statusOf is the exit status in an error of a command that ran.
func statusOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprint(exit.ExitCode())
	}
	return err.Error()
}

// skip skips a test for what the machine lacks, or fails it where nothing may
// be skipped.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
		t.Fatalf("may not be skipped: %s", why)
	}
	t.Skip(why)
}
