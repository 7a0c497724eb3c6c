package compose

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/pkg/stdcopy"
)

// projectLabel is what Docker Compose of either generation puts on a project's
// containers.
const projectLabel = "com.docker.compose.project"

// Member is a container of a compose project: a node or a router.
type Member struct {
	ID     string
	Name   string // of the node or the box
	Router bool
	State  string // as the engine has it: running, exited, …

	// Of a node.
	Role      string
	Profile   string
	Settings  string // JSON, or nothing
	Public    bool   // its host is on the internet
	Addresses []string
}

// Project returns the nodes and routers of a compose project, by name. A
// project without any is an error.
func (e *Engine) Project(ctx context.Context, name string) ([]Member, error) {
	all, err := e.api.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", projectLabel+"="+name), filters.Arg("label", Label)),
	})
	if err != nil {
		return nil, explain("list the containers of project "+name, err)
	}
	var members []Member
	for _, c := range all {
		m := Member{
			ID: c.ID, Name: c.Labels[NodeLabel], State: c.State,
			Role: c.Labels[RoleLabel], Profile: c.Labels[ProfileLabel], Settings: c.Labels[SettingsLabel],
			Public: c.Labels[PublicLabel] == "true",
		}
		if router := c.Labels[RouterLabel]; router != "" {
			m.Name, m.Router = router, true
		}
		if m.Name == "" {
			continue // a host without a node
		}
		for _, n := range c.NetworkSettings.Networks {
			m.Addresses = append(m.Addresses, n.IPAddress)
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	if len(members) == 0 {
		return nil, fmt.Errorf("no node runs in a compose project %q; expected docker-compose -p %s -f FILE up -d, with a FILE of gauntlet compose", name, name)
	}
	for _, m := range members {
		if m.State != "running" {
			return nil, fmt.Errorf("%s is %s; docker logs %s says why", m.Name, m.State, m.ID[:12])
		}
	}
	return members, nil
}

// AwaitLine waits until a container has written a line to its stdout. An end
// of the container before that is an error with what it wrote.
func (e *Engine) AwaitLine(ctx context.Context, m Member, line string) error {
	operation := "wait for " + m.Name
	logs, err := e.api.ContainerLogs(ctx, m.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	if err != nil {
		return explain(operation, err)
	}
	defer logs.Close()
	out, in := io.Pipe()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, err := stdcopy.StdCopy(in, in, logs)
		in.CloseWithError(err)
	}()
	defer func() {
		logs.Close()
		out.Close()
		<-copied
	}()
	last := "nothing"
	s := bufio.NewScanner(out)
	for s.Scan() {
		if s.Text() == line {
			return nil
		}
		last = s.Text()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", operation, context.Cause(ctx))
	}
	return errors.Join(fmt.Errorf("%s: it ended, and wrote last: %s", operation, last), s.Err())
}

// Attachment is a connection to the standard streams of a container that goes
// on without it.
type Attachment struct {
	stream types.HijackedResponse
	stdout *io.PipeReader
	copied chan struct{}
}

// Attach connects to a container's stdin and to what it writes to stdout from
// now on.
func (e *Engine) Attach(ctx context.Context, m Member) (*Attachment, error) {
	stream, err := e.attach(ctx, m.ID, container.AttachOptions{Stream: true, Stdin: true, Stdout: true})
	if err != nil {
		return nil, explain("attach to "+m.Name, err)
	}
	out, in := io.Pipe()
	a := &Attachment{stream: stream, stdout: out, copied: make(chan struct{})}
	go func() {
		defer close(a.copied)
		_, err := stdcopy.StdCopy(in, io.Discard, stream.Reader)
		if errors.Is(err, net.ErrClosed) {
			err = nil // by Close
		}
		in.CloseWithError(err)
	}()
	return a, nil
}

// Read reads the container's stdout.
func (a *Attachment) Read(p []byte) (int, error) { return a.stdout.Read(p) }

// Write writes to the container's stdin.
func (a *Attachment) Write(p []byte) (int, error) { return a.stream.Conn.Write(p) }

// Close ends the connection. The container's stdin stays open.
func (a *Attachment) Close() error {
	a.stream.Close()
	err := a.stdout.Close()
	<-a.copied
	return err
}
