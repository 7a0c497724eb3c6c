package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

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

// removeTimeout bounds the taking down of a container.
const removeTimeout = 10 * time.Second

// Spec says what a container runs.
type Spec struct {
	Name    string // of the node; the container's is made from it
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
	space  string // the file that is its network namespace
	stream types.HijackedResponse
	stdout *io.PipeReader
	copied chan struct{} // closed when nothing more comes from the container

	done    chan struct{} // closed when the container has ended
	err     error         // how it ended, set before done is closed
	removed sync.Once
}

// Start creates a container, attaches to it and starts it. What was made is
// removed again where that fails.
func (e *Engine) Start(ctx context.Context, s Spec) (_ *Container, err error) {
	operation := "start a container for " + s.Name
	created, err := e.api.ContainerCreate(ctx, e.config(s), hostConfig(s), nil, nil, e.run+"-"+s.Name)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("%s: %w", operation, e.Has(ctx, s.Image))
	} else if err != nil {
		return nil, explain(operation, err)
	}
	c := &Container{id: created.ID, engine: e, copied: make(chan struct{}), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(explain(operation, err), c.abandon())
		}
	}()
	// Waiting and reading begin before the container does, so that nothing of it
	// is missed.
	c.stream, err = e.api.ContainerAttach(ctx, c.id, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
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

func (e *Engine) config(s Spec) *container.Config {
	return &container.Config{
		Image: s.Image, Cmd: s.Command, Labels: e.labels(), WorkingDir: StateDir,
		Env:         append([]string{"HOME=" + StateDir, "TMPDIR=" + StateDir}, s.Env...),
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		// The one attachment is the leash: with it, standard input ends.
		OpenStdin: true, StdinOnce: true,
	}
}

func hostConfig(s Spec) *container.HostConfig {
	pids := int64(pidsLimit)
	return &container.HostConfig{
		NetworkMode: "none", IpcMode: "private", AutoRemove: true, ReadonlyRootfs: true,
		CapDrop: []string{"ALL"}, CapAdd: s.Capabilities, SecurityOpt: []string{"no-new-privileges"},
		LogConfig: container.LogConfig{Type: "none"}, // the attachment has it all
		Tmpfs:     map[string]string{StateDir: fmt.Sprintf("mode=0700,size=%d", stateLimit)},
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
	ended, failed := c.engine.api.ContainerWait(context.Background(), c.id, container.WaitConditionNextExit)
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
			c.err = explain("wait for a container", err)
		}
	}()
}

// enter finds the container's network namespace.
func (c *Container) enter(ctx context.Context) error {
	info, err := c.engine.api.ContainerInspect(ctx, c.id)
	if err != nil {
		return err
	}
	if !info.State.Running || info.State.Pid == 0 {
		return fmt.Errorf("it ended at once: %s", strings.TrimSpace(fmt.Sprintf("exit status %d %s", info.State.ExitCode, info.State.Error)))
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

// Namespace opens the container's network namespace. The handle is the
// caller's, and holds the namespace beyond the container's end.
func (c *Container) Namespace() (*ns.Handle, error) {
	f, err := os.Open(c.space)
	if err != nil {
		return nil, fmt.Errorf("open a container's network namespace: %w", err)
	}
	return ns.FromFile(f)
}

// Stdin is the container's standard input. Closing it is closing the leash.
func (c *Container) Stdin() io.WriteCloser { return stdin{c.stream} }

type stdin struct{ stream types.HijackedResponse }

func (s stdin) Write(p []byte) (int, error) { return s.stream.Conn.Write(p) }
func (s stdin) Close() error                { return s.stream.CloseWrite() }

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

func (c *Container) abandon() (err error) {
	c.removed.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
		defer cancel()
		err = c.engine.remove(ctx, c.id)
		if c.stdout != nil {
			c.stdout.Close()
			c.stream.Close()
			<-c.copied
			<-c.done
		}
	})
	return err
}

// remove takes a container down; one that is gone, or going, is fine.
func (e *Engine) remove(ctx context.Context, id string) error {
	err := e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return explain("remove container "+id[:12], err)
}
