package tests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// vanishTimeout is how long the kernel may take to end a killed sandbox.
const vanishTimeout = time.Minute

// traces is what a run could leave behind on the machine, outside of its
// sandbox.
type traces struct {
	Interfaces, Sockets, Named, SharedMemory, Temporary []string
}

func look(t *testing.T, temporary string) traces {
	t.Helper()
	names := func(dir string) []string {
		var all []string
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	var sockets []string
	unix, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unix)) {
		if strings.Contains(line, "@gauntlet/") && strings.Contains(line, t.Name()) {
			sockets = append(sockets, strings.TrimSpace(line))
		}
	}
	var shared []string
	for _, name := range names("/dev/shm") {
		if strings.HasPrefix(name, "gauntlet") {
			shared = append(shared, name)
		}
	}
	return traces{names("/sys/class/net"), sockets, names("/run/netns"), shared, names(temporary)}
}

// beyond is what was not there before.
func (t traces) beyond(before traces) traces {
	added := func(now, before []string) (added []string) {
		for _, name := range now {
			if !slices.Contains(before, name) {
				added = append(added, name)
			}
		}
		return added
	}
	return traces{
		added(t.Interfaces, before.Interfaces), added(t.Sockets, before.Sockets), added(t.Named, before.Named),
		added(t.SharedMemory, before.SharedMemory), added(t.Temporary, before.Temporary),
	}
}

// marked returns the processes that have a variable in their environment,
// which everything that a run starts inherits, but for nodes; those are held
// by the sandbox's init, which has it.
func marked(t *testing.T, mark string) []string {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range environments {
		env, err := os.ReadFile(file)
		if err == nil && bytes.Contains(env, []byte(mark)) {
			found = append(found, strings.Split(file, "/")[2])
		}
	}
	return found
}

// namespaces are those that processes are in and this process is not: the names
// that the kernel gives them, each with its file.
func namespaces(processes []string) map[string]string {
	found := map[string]string{}
	for _, kind := range []string{"net", "pid", "user", "mnt", "ipc"} {
		own, _ := os.Readlink("/proc/self/ns/" + kind)
		for _, pid := range processes {
			file := "/proc/" + pid + "/ns/" + kind
			if name, err := os.Readlink(file); err == nil && name != own {
				found[name] = file
			}
		}
	}
	return found
}

// holding are namespaces that are held open: of one that is not, the kernel gives the
// name to the next that anybody makes.
type holding map[string]*os.File

// hold adds those that are still there.
func (h holding) hold(namespaces map[string]string) {
	for name, file := range namespaces {
		if h[name] != nil {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		if now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || now != name {
			f.Close()
			continue
		}
		h[name] = f
	}
}

func (h holding) release() {
	for _, f := range h {
		f.Close()
	}
}

// everybody is all processes of the machine.
func everybody(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, e.Name())
		}
	}
	return all
}

// A SIGKILL at any moment leaves no process, namespace, interface, socket or
// file behind.
func TestKill(t *testing.T) {
	topology := file(t, "pair.yaml", `topology:
  middleboxes: {box: {preset: symmetric}}
  hosts: {alice: {behind: box}, bob: {}}
`)
	temporary := t.TempDir()
	before := look(t, temporary)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))

	// kill starts and kills so many times, then looks.
	kill := func(t *testing.T, times int, within time.Duration, args func() []string) {
		t.Helper()
		mark := fmt.Sprintf("GAUNTLET_TEST_MARK=%s-%d", t.Name(), random.Uint64())
		made := holding{}
		defer made.release()
		for n := range times {
			cmd := exec.Command(gauntlet, args()...)
			cmd.Env = append(os.Environ(), mark, "TMPDIR="+temporary)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.NewTimer(time.Duration(random.Int64N(int64(within))))
			<-timer.C // the moment of the kill is what is tested
			if n%10 == 0 {
				made.hold(namespaces(marked(t, mark)))
			}
			cmd.Process.Kill()
			cmd.Wait()
		}
		vanished(t, func() string {
			if left := marked(t, mark); len(left) > 0 {
				return "processes " + strings.Join(left, ", ")
			}
			for name := range namespaces(everybody(t)) {
				if made[name] != nil {
					return "namespace " + name
				}
			}
			return cmp.Diff(traces{}, look(t, temporary).beyond(before))
		})
	}

	t.Run("within the first 10 ms", func(t *testing.T) {
		for range 20 {
			kill(t, 50, 10*time.Millisecond, func() []string {
				return []string{"up", "--name", "TestKill" + strconv.FormatUint(random.Uint64(), 36), topology}
			})
		}
	})
	t.Run("later in a run", func(t *testing.T) {
		for range 10 {
			kill(t, 2, 3*time.Second, func() []string { return []string{"run", "--only", "symmetric"} })
		}
	})
}

// vanished waits until nothing is left.
func vanished(t *testing.T, left func() string) {
	t.Helper()
	deadline := time.Now().Add(vanishTimeout)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for ; ; <-poll.C {
		what := left()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind %v after a kill: %s", vanishTimeout, what)
		}
	}
}
