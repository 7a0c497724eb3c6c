package tests

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"gauntlet/compose/composetest"
	"gauntlet/lab/report"
)

// engineProxy is a unix socket in front of the engine's.
type engineProxy struct {
	listener net.Listener

	mu    sync.Mutex
	conns []net.Conn
	isCut bool

	frozen atomic.Bool
	thawed chan struct{} // closed once it is cut

	serving sync.WaitGroup
}

func newEngineProxy(t *testing.T, engine string) *engineProxy {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &engineProxy{listener: listener, thawed: make(chan struct{})}
	p.serving.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", strings.TrimPrefix(engine, "unix://"))
			if err != nil {
				from.Close()
				continue
			}
			p.pass(from, to)
		}
	})
	t.Cleanup(p.cut)
	return p
}

// pass takes bytes both ways, ends of one direction too, until cut.
func (p *engineProxy) pass(from, to net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, from, to)
	if p.isCut {
		from.Close()
		to.Close()
		return
	}
	one := func(to, from net.Conn) {
		io.Copy(frozenWriter{to, p}, from)
		to.(*net.UnixConn).CloseWrite()
	}
	p.serving.Go(func() { one(to, from) })
	p.serving.Go(func() { one(from, to) })
}

// freeze has nothing pass any more, over connections that stay open.
func (p *engineProxy) freeze() { p.frozen.Store(true) }

type frozenWriter struct {
	io.Writer
	proxy *engineProxy
}

func (w frozenWriter) Write(b []byte) (int, error) {
	if w.proxy.frozen.Load() {
		<-w.proxy.thawed
		return 0, net.ErrClosed
	}
	return w.Writer.Write(b)
}

// cut ends all connections at once, and takes no other.
func (p *engineProxy) cut() {
	p.listener.Close()
	p.mu.Lock()
	if !p.isCut {
		close(p.thawed)
	}
	p.isCut = true
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.serving.Wait()
}

// The engine's connection is lost in the middle of a run: soon none of its
// containers runs, one sentence says what happened, and clean leaves nothing.
func TestEngineLost(t *testing.T) {
	api := composetest.Engine(t)
	results(t, "--backend", "docker", "--only", "login-blocked") // the image is there
	for name, least := range map[string]int{"while containers start": 2, "while nodes are driven": 16} {
		t.Run(name, func(t *testing.T) { loseEngine(t, api, least) })
	}
}

// loseEngine cuts the connection once at least so many containers are there.
func loseEngine(t *testing.T, api *client.Client, least int) {
	known := containersOf(t, api, nil)
	proxy := newEngineProxy(t, api.DaemonHost())
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--backend", "docker", "--only", "open")
	cmd.Env = append(cmd.Environ(), "DOCKER_HOST=unix://"+proxy.listener.Addr().String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for len(containersOf(t, api, known)) < least {
		select {
		case err := <-ended:
			t.Fatalf("it ended before: %v\n%s", err, &stderr)
		default:
		}
	}
	proxy.cut()
	timer := time.NewTimer(5 * time.Second)
	<-timer.C // the engine may still start what it was asked for before
	vanished(t, func() string { return strings.Join(listed(t, api, known, false), " ") })

	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.ExitCode() != report.ExitBadUsage || stdout.Len() > 0 {
		t.Errorf("exit status %v, on stdout:\n%s", err, &stdout)
	}
	sentence := regexp.MustCompile(`^gauntlet: run: the connection to the Docker engine was lost \(.*\): once it answers, gauntlet clean --run (gauntlet-\w+) removes what is left\n$`)
	said := sentence.FindStringSubmatch(stderr.String())
	if said == nil {
		t.Fatalf("on stderr:\n%s", &stderr)
	}
	if o := do(t, "clean", "--run", said[1]); o.status != 0 {
		t.Errorf("clean: exit status %d\n%s", o.status, o.stderr)
	}
	vanished(t, func() string { return strings.Join(containersOf(t, api, known), " ") }) // the engine may be at it
}

// The engine takes requests and gives no answer from the middle of a run on: the run
// ends all the same, with a sentence that says so, and clean leaves nothing.
func TestEngineSilent(t *testing.T) {
	api := composetest.Engine(t)
	results(t, "--backend", "docker", "--only", "login-blocked") // the image is there
	known := containersOf(t, api, nil)
	proxy := newEngineProxy(t, api.DaemonHost())
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "--backend", "docker", "--only", "open")
	cmd.Env = append(cmd.Environ(), "DOCKER_HOST=unix://"+proxy.listener.Addr().String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for len(containersOf(t, api, known)) < 2 {
		if t.Context().Err() != nil {
			t.Fatal("no containers appeared")
		}
	}
	proxy.freeze()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != report.ExitBadUsage || stdout.Len() > 0 {
		t.Errorf("exit status %v, on stdout:\n%s", err, &stdout)
	}
	proxy.cut()
	sentence := regexp.MustCompile(`^gauntlet: run: the Docker engine no longer answers \(.*\): once it answers, gauntlet clean --run (gauntlet-\w+) removes what is left\n$`)
	said := sentence.FindStringSubmatch(stderr.String())
	if said == nil {
		t.Fatalf("on stderr:\n%s", &stderr)
	}
	if o := do(t, "clean", "--run", said[1]); o.status != 0 {
		t.Errorf("clean: exit status %d\n%s", o.status, o.stderr)
	}
	vanished(t, func() string { return strings.Join(containersOf(t, api, known), " ") }) // the engine may be at it
}
