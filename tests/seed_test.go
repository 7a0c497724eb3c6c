package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// laterClaims are rows of the seed that no node offers yet.
var laterClaims = []string{"P-B0", "P-B1", "P-B2", "P-A0"}

// Every row of the seed comes out as the seed states it; those that the
// reference overlay can't do yet are reported as not offered, not as passed.
func TestSeedSuite(t *testing.T) {
	r, o := results(t)
	if o.status != report.ExitPass {
		t.Errorf("exit status %d\n%s", o.status, o.stderr)
	}
	seen := map[string]bool{}
	for _, c := range r.Checks {
		want := verdict.Pass
		if slices.ContainsFunc(c.Claims, func(claim string) bool { return slices.Contains(laterClaims, claim) }) {
			want = verdict.NotOffered
		}
		if c.Verdict != want {
			t.Errorf("%s %v: %s, want %s: %s\n%s", c.ID, c.Claims, c.Verdict, want, c.Reason, strings.Join(c.Notes, "\n"))
		}
		for _, claim := range c.Claims {
			seen[claim] = true
		}
	}
	for _, claim := range append([]string{
		"P-L0", "P-L1", "P-L2", "P-L3", "P-S0", "P-S1", "P-S2", "P-S3", "P-C0", "P-C1", "P-C2", "P-C3", "P-C4",
	}, laterClaims...) {
		if !seen[claim] {
			t.Errorf("no check reproduces %s", claim)
		}
	}
}

// What is written as expected decides: the same lab fails when another path is
// expected of it.
func TestWrongExpectationFails(t *testing.T) {
	t.Parallel()
	data, err := files.ReadFile("seed/open.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "path: direct\n      transport: udp", "path: punched\n      transport: udp", 1)
	if text == string(data) {
		t.Fatal("open.yaml has no search to expect something else of")
	}
	r, o := results(t, file(t, "wrong.yaml", text))
	if o.status != report.ExitFail {
		t.Errorf("exit status %d, want %d", o.status, report.ExitFail)
	}
	for _, c := range r.Checks {
		wrong := c.Function == "search"
		if wrong != (c.Verdict == verdict.Fail) {
			t.Errorf("%s: %s: %s", c.ID, c.Verdict, c.Reason)
		}
		if wrong && !strings.Contains(c.Reason, "expected punched") {
			t.Errorf("reason: %s", c.Reason)
		}
	}
}

// The same command works as an ordinary user.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--only", "P-S2")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = "/"
	}
	if o := finish(t, cmd); o.status != 0 {
		t.Errorf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// A user for whom user namespaces are forbidden is told in one sentence what to
// do. A sandbox in which they are used up stands for such a machine.
func TestNoUserNamespaces(t *testing.T) {
	t.Parallel()
	script := `echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --reuid=1 --regid=1 --clear-groups "$@"`
	topology := file(t, "t.yaml", "topology: {hosts: {a: {}}}")
	if os.Geteuid() != 0 {
		skip(t, "only root can make another user")
	}
	os.Chmod(filepath.Dir(topology), 0o755)
	for dir := filepath.Dir(topology); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	o := do(t, "exec", topology, "a", "--", "sh", "-c", script, "sh", gauntlet, "run")
	if o.status != report.ExitBadUsage {
		t.Errorf("exit status %d, want %d\n%s", o.status, report.ExitBadUsage, o.stderr)
	}
	sentence := regexp.MustCompile(`^gauntlet: this machine does not let you make user namespaces \(.*\): run gauntlet as root, or see .gauntlet doctor. .*\n$`)
	if !sentence.MatchString(o.stderr) {
		t.Errorf("stderr:\n%s", o.stderr)
	}
	o = do(t, "exec", topology, "a", "--", "sh", "-c", script, "sh", gauntlet, "doctor")
	if o.status != report.ExitFail || !strings.Contains(o.stdout, "sysctl user.max_user_namespaces=") {
		t.Errorf("doctor: exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// The report folder holds what the verdicts were judged from, and other
// people's tools can read it.
func TestReportFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "report")
	r, o := results(t, "--only", "P-L2", "-o", dir)
	if o.status != 0 {
		t.Fatalf("exit status %d\n%s", o.status, o.stderr)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil || string(stored) != o.stdout {
		t.Errorf("results.json is not what stdout got: %v", err)
	}
	for _, c := range r.Checks {
		if len(c.Evidence) == 0 {
			t.Errorf("%s names no evidence", c.ID)
		}
		for _, name := range c.Evidence {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := exec.LookPath("tshark"); err != nil {
		skip(t, "tshark is not installed")
	}
	capture := filepath.Join(dir, "login-blocked", "capture.pcapng")
	out, err := exec.CommandContext(t.Context(), "tshark", "-r", capture, "-Y", "tcp.flags.syn==1 && tcp.dstport==33033", "-T", "fields", "-e", "frame.interface_name").CombinedOutput()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, out)
	}
	for _, tap := range []string{"alice/eth0", "office/lan", "sn1/eth0"} {
		if !slices.Contains(strings.Fields(string(out)), tap) {
			t.Errorf("tshark sees no SYN at %s", tap)
		}
	}
	// A second report into the same folder replaces the first.
	if _, o := results(t, "--only", "P-L2", "-o", dir); o.status != 0 {
		t.Errorf("again: exit status %d\n%s", o.status, o.stderr)
	}
}

// A node in another language is driven through the same seam.
func TestForeignNode(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		skip(t, "python3 is not installed")
	}
	for _, test := range []struct {
		file string
		want []string
	}{
		{"echo", []string{verdict.Pass, verdict.NotOffered, verdict.Pass}},
		{"nesting", []string{verdict.Pass, verdict.Pass, verdict.Pass, verdict.Pass}},
		{"lease", []string{verdict.Pass, verdict.Pass, verdict.Pass, verdict.Pass, verdict.Pass}},
		{"proxy", []string{verdict.Pass}},
		{"portmapping", []string{verdict.Pass, verdict.Pass}},
	} {
		if program := programs[test.file]; program != "" && !installed(program) {
			skip(t, program+" is not installed")
		}
		r, o := results(t, "foreign/"+test.file+".yaml")
		if o.status != 0 {
			t.Errorf("%s: exit status %d\n%s", test.file, o.status, o.stderr)
		}
		var verdicts []string
		for _, c := range r.Checks {
			verdicts = append(verdicts, c.Verdict)
		}
		if !slices.Equal(verdicts, test.want) {
			t.Errorf("%s: verdicts %v, want %v", test.file, verdicts, test.want)
		}
	}
}

// The JUnit form has a case for each check.
func TestJUnit(t *testing.T) {
	t.Parallel()
	o := do(t, "run", "--only", "P-L2", "--format", "junit")
	if o.status != 0 || !strings.Contains(o.stdout, `<testcase name="login-blocked/login/alice"`) {
		t.Errorf("exit status %d\n%s", o.status, o.stdout)
	}
}
