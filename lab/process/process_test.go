package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

func namespace(t *testing.T) *ns.Handle {
	t.Helper()
	h, err := ns.New()
	if err != nil {
		if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
			t.Fatalf("may not be skipped: %v", err)
		}
		t.Skipf("no network namespaces: %v", err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// status runs a shell that prints its own /proc/self/status.
func status(t *testing.T, p Privileges) map[string]string {
	t.Helper()
	var out bytes.Buffer
	cmd := Command([]string{"cat", "/proc/self/status"}, "", os.Environ())
	cmd.Stdout = &out
	if err := Start(cmd, namespace(t), p); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(out.String()) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func TestPrivileges(t *testing.T) {
	none := status(t, Privileges{})
	if none["CapEff"] != "0000000000000000" || none["CapBnd"] != "0000000000000000" || none["NoNewPrivs"] != "1" {
		t.Errorf("without privileges: effective %s, bounding %s, no_new_privs %s", none["CapEff"], none["CapBnd"], none["NoNewPrivs"])
	}
	bind := status(t, Privileges{Keep: []int{unix.CAP_NET_BIND_SERVICE}})
	if bind["CapBnd"] != "0000000000000400" {
		t.Errorf("with CAP_NET_BIND_SERVICE: bounding %s", bind["CapBnd"])
	}
	own, err := exec.CommandContext(t.Context(), "grep", "CapBnd", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := status(t, Privileges{All: true})
	if !strings.Contains(string(own), all["CapBnd"]) || all["NoNewPrivs"] != "0" {
		t.Errorf("with all: bounding %s, own %s, no_new_privs %s", all["CapBnd"], own, all["NoNewPrivs"])
	}
	// Neither thread nor process of the test has lost anything.
	if again, err := exec.CommandContext(t.Context(), "grep", "CapBnd", "/proc/self/status").Output(); err != nil || !bytes.Equal(own, again) {
		t.Errorf("the test's own bounding set changed from %s to %s", own, again)
	}
}

// Nodes stand back behind the lab, however far that stands back itself.
func TestNice(t *testing.T) {
	first, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []int{0, 3, 12, maxNice} {
		own := min(20-first+more, maxNice)
		var out bytes.Buffer
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, own); err != nil {
				done <- err
				return
			}
			if err := limit(nil); err != nil {
				done <- err
				return
			}
			cmd := exec.Command("nice") // without arguments it says how nice it is
			cmd.Stdout = &out
			done <- cmd.Run()
		}()
		if err := <-done; err != nil {
			t.Fatalf("at nice %d: %v", own, err)
		}
		if want := fmt.Sprintln(min(own+nodeNice, maxNice)); out.String() != want {
			t.Errorf("at nice %d a node has %s, want %s", own, &out, want)
		}
	}
}

// A node is inside its namespace, its stderr is kept, and its whole group ends
// with it.
func TestNode(t *testing.T) {
	h := namespace(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	n, err := StartNode(Config{
		Name: "alice", Dir: filepath.Join(dir, "state"), Log: log, Namespace: h, Env: os.Environ(),
		Argv: []string{"sh", "-c", "for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; readlink /proc/self/ns/net >&2; sleep 1000 & wait"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := h.Do(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(strings.Join(n.LastLines(), "\n"), inside) {
		select {
		case <-n.Done():
			t.Fatalf("ended: %v", n.LastLines())
		case <-t.Context().Done():
			t.Fatalf("never wrote %s: %v", inside, n.LastLines())
		default:
		}
	}
	if last := n.LastLines(); len(last) != 5 || last[0] != "line 4" {
		t.Errorf("last lines %q", last)
	}
	group := n.program.(*local).cmd.Process.Pid
	n.Kill()
	for living(t, group) { // until the kernel has ended those that were killed
		if t.Context().Err() != nil {
			t.Fatal("something of the node's group is still there")
		}
	}
	kept, err := os.ReadFile(log)
	if err != nil || !strings.HasPrefix(string(kept), "line 1\nline 2\n") {
		t.Errorf("log %q, %v", kept, err)
	}
}

// A node that stands still does nothing, and all that it started stands still with
// it; it goes on where it was, and can be killed as it stands.
func TestStall(t *testing.T) {
	dir := t.TempDir()
	n, err := StartNode(Config{
		Name: "alice", Dir: filepath.Join(dir, "state"), Log: filepath.Join(dir, "log"), Namespace: namespace(t), Env: os.Environ(),
		Argv: []string{"sh", "-c", "sleep 1000 & read line; echo $line >&2; wait"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Kill()
	group := n.program.(*local).cmd.Process.Pid
	await := func(want string, reached func() bool) {
		t.Helper()
		for !reached() {
			if t.Context().Err() != nil {
				t.Fatalf("not %s: states %q", want, states(t, group))
			}
		}
	}
	await("two processes", func() bool { return len(states(t, group)) == 2 })
	for range 2 { // the second time changes nothing
		if err := n.Stall(); err != nil {
			t.Fatal(err)
		}
	}
	await("all stopped", func() bool { return states(t, group) == "TT" })
	if _, err := n.program.Stdin().Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := n.Resume(); err != nil {
		t.Fatal(err)
	}
	await("told what it missed", func() bool { return slices.Contains(n.LastLines(), "hello") })
	if err := n.Stall(); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	if err := n.Resume(); err == nil || err.Error() != "node alice has ended" {
		t.Errorf("a node that has ended goes on: %v", err)
	}
}

// states are those of a group's processes as proc(5) has them, one letter each.
func states(t *testing.T, group int) (all string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		stat, _ := os.ReadFile(file)
		_, after, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(after); len(f) > 2 && f[2] == strconv.Itoa(group) {
			all += f[0]
		}
	}
	return all
}

// living says whether a process of the group runs; one that only waits to be
// reaped does not.
func living(t *testing.T, group int) bool {
	t.Helper()
	return strings.Trim(states(t, group), "ZX") != ""
}

func TestLogBounds(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{file: file}
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 2 * maxLog / len(line) {
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.Write([]byte("the end"))
	file.Close()
	if info, err := os.Stat(file.Name()); err != nil || info.Size() != maxLog {
		t.Errorf("the file has %v bytes, want %d", info.Size(), maxLog)
	}
	if len(l.tail) > maxTail || l.last(1)[0] != "the end" {
		t.Errorf("tail of %d bytes ends %q", len(l.tail), l.last(1))
	}
}

func TestCannotStart(t *testing.T) {
	dir := t.TempDir()
	_, err := StartNode(Config{Name: "bob", Argv: []string{"/no/such/node"}, Dir: dir, Log: filepath.Join(dir, "log"), Namespace: namespace(t)})
	if err == nil || !strings.Contains(err.Error(), "start node bob: ") || !strings.Contains(err.Error(), "/no/such/node") {
		t.Errorf("got %v", err)
	}
}
