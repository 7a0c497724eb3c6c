package compose

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"gauntlet/topo/ns"
)

// StateDir is the only place in a container that can be written to: a file
// system in memory, gone with it.
const StateDir = "/state"

// Limits of a container, several times what a node of the reference overlay
// takes, far less than what would hurt the machine.
const (
	memoryLimit = 512 << 20 // bytes, swap included
	pidsLimit   = 512
	stateLimit  = 64 << 20 // bytes of StateDir
	// cpuShares has containers stand back behind the lab that records them: half
	// the weight that a process has by default (1024).
	cpuShares = 512
)

// stallTimeout bounds how long a container may take to stand still, or to go on.
const stallTimeout = 10 * time.Second

// Spec says what a container runs.
type Spec struct {
	Name    string // of the node, in any characters; the container's is made from it
	Image   string
	Command []string // what follows the image's entry point, its default if empty
	Env     []string // NAME=VALUE
	// Capabilities are those that the container keeps, such as
	// "NET_BIND_SERVICE"; all others are dropped.
	Capabilities []string
	// Stderr gets what the container writes there.
	Stderr io.Writer
}

// Container is a running container. Its standard streams are attached, its
// network namespace holds a loopback interface and nothing else.
type Container struct {
	id     string
	engine *Engine
	space  string // the file that is its network namespace, "" if it ended before that was known
	stream types.HijackedResponse
	stdout *io.PipeReader
	copied chan struct{} // closed when nothing more comes from the container

	done    chan struct{} // closed when the container has ended
	err     error         // how it ended, set before done is closed
	forget  func()        // has nobody wait for its end any more
	removed sync.Once
}

// Start creates a container, attaches to it and starts it. What was made is
// removed again where that fails. A container may have ended by the time that Start
// returns, which is no failure of it.
func (e *Engine) Start(ctx context.Context, s Spec) (_ *Container, err error) {
	operation := "start a container for " + s.Name
	created, err := e.api.ContainerCreate(ctx, e.config(s), hostConfig(s), nil, nil, e.named(s.Name))
	if err != nil {
		if errdefs.IsNotFound(err) {
			err = cmp.Or(e.Has(ctx, s.Image), err)
		}
		return nil, e.explain(ctx, operation, err)
	}
	c := &Container{id: created.ID, engine: e, copied: make(chan struct{}), done: make(chan struct{})}
	defer func() {
		if err != nil {
			// What can't be removed either comes after.
			err = errors.Join(e.explain(ctx, operation, err), c.abandon())
		}
	}()
	// Waiting and reading begin before the container does, so that nothing of it
	// is missed.
	c.stream, err = e.attach(ctx, c.id, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		close(c.copied)
		return nil, err
	}
	c.read(s.Stderr)
	c.wait()
	if err := e.api.ContainerStart(ctx, c.id, container.StartOptions{}); err != nil {
		return nil, err
	}
	return c, c.enter(ctx)
}

// named is the name of a container, in which an engine takes letters, digits, and any
// of _ . - alone. What is replaced stays apart from what is so named.
func (e *Engine) named(node string) string {
	name := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("_.-", r) {
			return r
		}
		return '_'
	}, node)
	if name != node {
		sum := sha256.Sum256([]byte(node))
		name += fmt.Sprintf("-%x", sum[:4])
	}
	return e.run + "-" + name
}

func (e *Engine) config(s Spec) *container.Config {
	return &container.Config{
		Image: s.Image, Cmd: s.Command, Labels: e.labels(),
		Env:         append([]string{"HOME=" + StateDir, "TMPDIR=" + StateDir}, s.Env...),
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		// The one attachment is the leash: with it, standard input ends.
		OpenStdin: true, StdinOnce: true,
		// The runtime makes the network namespace, with loopback in it, and the
		// engine has nothing to do with it. An engine that has runs itself once
		// more for each container (20.10, as a hook of runc's): 136 ms of processor
		// time out of 365 from creation to removal.
		NetworkDisabled: true,
	}
}

func hostConfig(s Spec) *container.HostConfig {
	pids := int64(pidsLimit)
	return &container.HostConfig{
		NetworkMode: "none", IpcMode: "private", AutoRemove: true, ReadonlyRootfs: true,
		CapDrop: []string{"ALL"}, CapAdd: s.Capabilities, SecurityOpt: []string{"no-new-privileges"},
		LogConfig: container.LogConfig{Type: "none"}, // the attachment has it all
		// The image may have a user of its own, whom only the engine knows. The mode
		// holds where the image has no such folder, so it is no working directory:
		// that the engine would make, for root, and runc 1.1 then keeps that mode.
		Tmpfs:     map[string]string{StateDir: fmt.Sprintf("mode=1777,size=%d", stateLimit)},
		Resources: container.Resources{Memory: memoryLimit, MemorySwap: memoryLimit, PidsLimit: &pids, CPUShares: cpuShares},
	}
}

// read takes the container's output apart.
func (c *Container) read(stderr io.Writer) {
	if stderr == nil {
		stderr = io.Discard
	}
	out, in := io.Pipe()
	c.stdout = out
	go func() {
		defer close(c.copied)
		_, err := stdcopy.StdCopy(in, stderr, c.stream.Reader)
		in.CloseWithError(err)
	}()
}

// wait learns how the container ends.
func (c *Container) wait() {
	// Not the caller's context: the container may outlast the call.
	ctx, cancel := context.WithCancel(context.Background())
	c.forget = cancel
	ended, failed := c.engine.api.ContainerWait(ctx, c.id, container.WaitConditionNextExit)
	go func() {
		defer close(c.done)
		select {
		case r := <-ended:
			if r.Error != nil {
				c.err = errors.New(r.Error.Message)
			} else if r.StatusCode != 0 {
				c.err = fmt.Errorf("exit status %d", r.StatusCode)
			}
		case err := <-failed:
			c.err = c.engine.explain(ctx, "wait for a container", err)
		}
	}()
}

// enter finds the container's network namespace, which one that has ended has no
// more.
func (c *Container) enter(ctx context.Context) error {
	info, err := c.engine.api.ContainerInspect(ctx, c.id)
	if errdefs.IsNotFound(err) {
		return nil // it has ended, and is removed
	}
	if err != nil || !info.State.Running || info.State.Pid == 0 {
		return err
	}
	// Not NetworkSettings.SandboxKey: that is a mount, which is not seen from a
	// mount namespace that was there before it, unless mounts are shared.
	proc := "/proc"
	if c.engine.Proc != nil {
		proc = fmt.Sprintf("/proc/self/fd/%d", c.engine.Proc.Fd())
	}
	c.space = filepath.Join(proc, strconv.Itoa(info.State.Pid), "ns/net")
	return nil
}

// ErrEnded says that a container has ended.
var ErrEnded = errors.New("the container has ended")

// Namespace opens the container's network namespace. The handle is the
// caller's, and holds the namespace beyond the container's end. The error is
// ErrEnded where that came before.
func (c *Container) Namespace() (*ns.Handle, error) {
	if c.space == "" {
		return nil, ErrEnded
	}
	f, err := os.Open(c.space)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrEnded
	}
	if err != nil {
		return nil, fmt.Errorf("open a container's network namespace: %w", err)
	}
	return ns.FromFile(f)
}

// Stdin is the container's standard input. Closing it is closing the leash.
func (c *Container) Stdin() io.WriteCloser { return stdin{c.stream} }

type stdin struct{ stream types.HijackedResponse }

func (s stdin) Write(p []byte) (int, error) { return s.stream.Conn.Write(p) }

// Close also ends a Write that waits for a container which has stopped reading,
// as that of a pipe does; closing the one direction of a connection alone doesn't.
func (s stdin) Close() error {
	return errors.Join(s.stream.Conn.SetWriteDeadline(time.Now()), s.stream.CloseWrite())
}

// Stdout is the container's standard output.
func (c *Container) Stdout() io.ReadCloser { return c.stdout }

// Done is closed once the container has ended.
func (c *Container) Done() <-chan struct{} { return c.done }

// Wait waits for the container's end and returns how it ended, nil for exit
// status 0.
func (c *Container) Wait() error {
	<-c.done
	return c.err
}

// Kill ends the container at once, waits for that, and lets go of it.
func (c *Container) Kill() { c.abandon() }

// Stall has all processes of the container stand still, by its freezer.
func (c *Container) Stall() error {
	ctx, cancel := context.WithTimeout(context.Background(), stallTimeout)
	defer cancel()
	return explain("pause a container", c.engine.api.ContainerPause(ctx, c.id))
}

// Resume has them go on.
func (c *Container) Resume() error {
	ctx, cancel := context.WithTimeout(context.Background(), stallTimeout)
	defer cancel()
	return explain("unpause a container", c.engine.api.ContainerUnpause(ctx, c.id))
}

func (c *Container) abandon() (err error) {
	c.removed.Do(func() {
		err = c.engine.remove(context.Background(), c.id)
		if c.stdout == nil {
			return
		}
		c.stdout.Close()
		c.stream.Close()
		<-c.copied
		late := time.NewTimer(c.engine.way.limit())
		defer late.Stop()
		if err == nil {
			select {
			case <-c.done:
			case <-late.C:
			}
		}
		c.forget()
		<-c.done
	})
	return err
}

// remove takes a container down, and returns once it is gone; one that is gone already
// is fine.
func (e *Engine) remove(ctx context.Context, id string) error {
	err := e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) { // it has just ended, and the engine is at it
		err = e.removal(ctx, id)
	}
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return e.explain(ctx, "remove container "+id[:12], err)
}

// removal waits for the end of a container's removal, which has begun.
func (e *Engine) removal(ctx context.Context, id string) error {
	limit := e.way.limit()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the engine was not done with that in %v", limit))
	defer cancel()
	removed, failed := e.api.ContainerWait(ctx, id, container.WaitConditionRemoved)
	select {
	case r := <-removed:
		if r.Error != nil {
			return errors.New(r.Error.Message)
		}
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}
