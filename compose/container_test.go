package compose

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/vishvananda/netlink"

	"gauntlet/compose/composetest"
)

// gone is how long anything of a run may be left after its end: an engine that is busy
// takes its time to remove containers that have ended.
const gone = time.Minute

// program builds the program that the tests run, and returns its path.
func program(t *testing.T) string {
	t.Helper()
	binary, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

var buildProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gauntlet-compose-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-o", binary, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", &Unavailable{What: string(out), Cause: err}
	}
	return binary, nil
})

// watchdogVariable turns the test binary into a watchdog for a run.
const watchdogVariable = "GAUNTLET_TEST_WATCHDOG"

func TestMain(m *testing.M) {
	if run := os.Getenv(watchdogVariable); run != "" {
		if err := Guard(context.Background(), os.Stdin, run); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if binary, err := buildProgram(); err == nil {
		os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

// connect reaches the machine's engine, or skips the test. What the test leaves
// is removed.
func connect(t *testing.T) *Engine {
	t.Helper()
	composetest.Engine(t)
	e, err := Connect(t.Context(), "gauntlet-test-"+strings.ToLower(rand.Text()[:8]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := e.Clean(context.Background(), e.Run()); err != nil {
			t.Error(err)
		}
		e.Close()
	})
	return e
}

// start runs the test's program in a container.
func start(t *testing.T, e *Engine, stderr io.Writer, command ...string) *Container {
	t.Helper()
	image, err := e.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(t.Context(), Spec{Name: command[0], Image: image, Command: command, Stderr: stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

// left are the containers of a run, the ended ones included.
func left(t *testing.T, e *Engine) (names []string) {
	t.Helper()
	all, err := e.api.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", RunLabel+"="+e.Run())),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		names = append(names, c.Names[0]+" "+c.State)
	}
	return names
}

// vanish waits until no container of the run is left.
func vanish(t *testing.T, e *Engine) {
	t.Helper()
	deadline := time.Now().Add(gone)
	for names := left(t, e); len(names) > 0; names = left(t, e) {
		if time.Now().After(deadline) {
			t.Fatalf("%v is still there after %v", names, gone)
		}
	}
}

// own is what the kernel calls a namespace by.
func own(t *testing.T, file string) string {
	t.Helper()
	name, err := os.Readlink(file)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestContainerStreams(t *testing.T) {
	e := connect(t)
	var stderr bytes.Buffer
	c := start(t, e, &stderr, "echo")
	if _, err := io.WriteString(c.Stdin(), "to and fro\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c.Stdout()).ReadString('\n')
	if err != nil || line != "to and fro\n" {
		t.Errorf("%q, %v", line, err)
	}

	space, err := c.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	if alone := own(t, c.space) != own(t, "/proc/self/ns/net"); !alone {
		t.Error("its network namespace is the machine's")
	}
	err = space.Do(func() error {
		links, err := netlink.LinkList()
		if len(links) != 1 || links[0].Attrs().Name != "lo" {
			t.Errorf("its network holds %v, want lo alone", links)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	if err := c.Stdin().Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	c.Kill() // lets go of it; all that it wrote has been read
	if stderr.String() != "echo is up\n" {
		t.Errorf("on stderr: %q", stderr.String())
	}
	vanish(t, e)
}

func TestContainerConfinement(t *testing.T) {
	c := start(t, connect(t), nil, "look")
	want := []string{"CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "write /new false", "write /state/new true"}
	var got []string
	s := bufio.NewScanner(c.Stdout())
	for len(got) < len(want) && s.Scan() {
		got = append(got, s.Text())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("it can do %q, want %q", got, want)
	}
	info, err := c.engine.api.ContainerInspect(t.Context(), c.id)
	if err != nil {
		t.Fatal(err)
	}
	if h := info.HostConfig; h.Memory != memoryLimit || h.PidsLimit == nil || *h.PidsLimit != pidsLimit || h.NetworkMode != "none" {
		t.Errorf("limits: memory %d, pids %v, network %s", h.Memory, h.PidsLimit, h.NetworkMode)
	}
}

func TestContainerEnds(t *testing.T) {
	e := connect(t)
	image, err := e.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	// One that ends at once may do so before its network can be had, or after.
	c, err := e.Start(t.Context(), Spec{Name: "fail", Image: image, Command: []string{"fail"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("ended with %v", err)
	}
	vanish(t, e)
	if err := c.enter(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Namespace(); !errors.Is(err, ErrEnded) {
		t.Errorf("the network of a container that has ended: %v", err)
	}
	c.Kill()
	deaf := start(t, e, nil, "deaf")
	deaf.Stdin().Close()
	deaf.Kill()
	if err := deaf.Wait(); err == nil {
		t.Error("a killed container is said to have ended well")
	}
	vanish(t, e)

	if _, err := e.Start(t.Context(), Spec{Name: "x", Image: "nobody/has:this"}); err == nil || !strings.Contains(err.Error(), `no image "nobody/has:this"`) {
		t.Errorf("an unknown image: %v", err)
	}
	vanish(t, e)
}

// One that has just ended, and that the engine is removing itself, is gone after Kill.
func TestContainerGoneAfterKill(t *testing.T) {
	e := connect(t)
	for range 5 {
		c := start(t, e, nil, "echo")
		c.Stdin().Close()
		c.Wait()
		c.Kill()
		if names := left(t, e); len(names) > 0 {
			t.Errorf("%v is left", names)
		}
	}
}

func TestContainerName(t *testing.T) {
	e := &Engine{run: "run"}
	valid := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`) // the engine's
	seen := map[string]bool{}
	for _, node := range []string{"open-sn1", "my test-alice", "my_test-alice", "my\ttest-alice", "Überfall-b", "(x)"} {
		name := e.named(node)
		if !valid.MatchString(name) || seen[name] {
			t.Errorf("%q: %q is no name, or another's", node, name)
		}
		seen[name] = true
	}
	if name := e.named("open-sn1"); name != "run-open-sn1" {
		t.Errorf("a good name becomes %q", name)
	}
}

// Closing the stdin of a container that has stopped reading ends a write to it.
func TestContainerStopsReading(t *testing.T) {
	e := connect(t)
	c := start(t, e, nil, "deaf")
	conn := c.stream.Conn
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	if n, err := c.Stdin().Write(make([]byte, 16<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it took %d bytes, %v", n, err)
	}
	conn.SetWriteDeadline(time.Time{})
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		close(begun)
		_, err := c.Stdin().Write(make([]byte, 16<<20)) // for which there is no room
		ended <- err
	}()
	<-begun
	c.Stdin().Close()
	select {
	case <-ended:
	case <-time.After(gone):
		t.Error("the write goes on")
	}
}

// A container whose driver loses its connection ends by itself.
func TestContainerLeash(t *testing.T) {
	e := connect(t)
	c := start(t, e, nil, "echo")
	c.stream.Close()
	vanish(t, e)
}

func TestWatchdogEndsTheDeaf(t *testing.T) {
	e := connect(t)
	c := start(t, e, nil, "deaf")
	if _, err := bufio.NewReader(c.Stdout()).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	t.Setenv(watchdogVariable, e.Run())
	w, err := Watch([]string{os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
		t.Error("the watchdog did not wait")
	default:
	}
	if err := w.Close(true); err != nil {
		t.Error(err)
	}
	vanish(t, e)
}

// What the engine makes after the end of whoever asked for it is removed too.
func TestWatchdogWaitsForTheEngine(t *testing.T) {
	e := connect(t)
	image, err := e.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(watchdogVariable, e.Run())
	w, err := Watch([]string{os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- w.Close(false) }()
	begun := time.Now()
	for n := range 12 { // each in the quiet time after the one before, however slow the engine
		timer := time.NewTimer(quietTime / 8)
		<-timer.C // it comes late: that is what is tested
		if _, err := e.api.ContainerCreate(t.Context(), e.config(Spec{Image: image}), hostConfig(Spec{}), nil, nil, fmt.Sprintf("%s-%d", e.Run(), n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if names := left(t, e); len(names) > 0 {
		t.Errorf("%v are left after %v", names, time.Since(begun))
	}
}

func TestClean(t *testing.T) {
	e := connect(t)
	start(t, e, nil, "deaf")
	start(t, e, nil, "echo")
	if _, err := e.api.NetworkCreate(t.Context(), e.Run(), network.CreateOptions{Internal: true, Labels: e.labels()}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.api.VolumeCreate(t.Context(), volume.CreateOptions{Name: e.Run(), Labels: e.labels()}); err != nil {
		t.Fatal(err)
	}
	removed, err := e.Clean(t.Context(), e.Run())
	if want := (Removed{Containers: 2, Networks: 1, Volumes: 1}); err != nil || removed != want {
		t.Errorf("%v, %v; want %v", removed, err, want)
	}
	vanish(t, e)
	if again, err := e.Clean(t.Context(), e.Run()); err != nil || again != (Removed{}) {
		t.Errorf("the second time %v, %v", again, err)
	}
}
