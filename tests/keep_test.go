package tests

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gauntlet/lab/report"
)

// A lab that is held can be entered until an interrupt; what the run came to is
// shown then as after any other.
func TestKeep(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "report")
	cmd, stdout, stderr := begin(t, "run", "--keep", "--only", "login-blocked", "--parallel", "1", "-o", dir, "--format", "json")
	var said []string
	for stderr.Scan() {
		said = append(said, stderr.Text())
		if !strings.Contains(stderr.Text(), "lab login-blocked is held") {
			continue
		}
		if o := do(t, "exec", "--lab", "login-blocked", "alice", "--", "true"); o.status != 0 {
			t.Errorf("enter the lab: %+v", o)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(said, "\n"))
	}
	if len(said) < 2 || !strings.Contains(said[0], "1/1 login-blocked") {
		t.Errorf("before it was held it said %q", said)
	}
	if again := do(t, "judge", dir, "--format", "json"); again.status != report.ExitPass || again.stdout != stdout.String() {
		t.Errorf("judged again: status %d\n%s\nthe run itself:\n%s", again.status, again.stderr, stdout)
	}
}
