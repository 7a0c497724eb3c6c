package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/topo/ns"
)

// stopGrace is how long a node may take to end after it was told to.
const stopGrace = 2 * time.Second

// Config says how to start a node.
type Config struct {
	Name       string
	Argv       []string
	Dir        string // the node's own folder, made if it isn't there
	Log        string // the file for what it writes to stderr
	Env        []string
	WorkDir    string // the process's current folder, "" for Dir
	Namespace  *ns.Handle
	Privileges Privileges
	OnEvent    func(control.Event)
}

// Node is a running node.
type Node struct {
	Name    string
	Control *control.Client

	cmd  *exec.Cmd
	in   io.Closer
	out  *os.File
	log  *log
	done chan struct{}

	mu  sync.Mutex
	err error // how the process ended
}

// StartNode starts a node and attaches to its stdin and stdout.
func StartNode(c Config) (*Node, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start node %s: %w", c.Name, err)
	}
	file, err := os.Create(c.Log)
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", c.Name, err)
	}
	dir := c.WorkDir
	if dir == "" {
		dir = c.Dir
	}
	n := &Node{Name: c.Name, cmd: Command(c.Argv, dir, c.Env), log: &log{file: file}, done: make(chan struct{})}
	n.cmd.Stderr = n.log
	// Where a descendant keeps stderr open, the node is done all the same.
	n.cmd.WaitDelay = stopGrace
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", c.Name, err)
	}
	// Not StdoutPipe: Wait would close it under the reader.
	out, outChild, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", c.Name, err)
	}
	n.cmd.Stdout = outChild
	err = Start(n.cmd, c.Namespace, c.Privileges)
	outChild.Close()
	if err != nil {
		out.Close()
		file.Close()
		return nil, fmt.Errorf("start node %s: %w", c.Name, err)
	}
	n.in, n.out = in, out
	n.Control = control.NewClient(out, in, c.OnEvent)
	go func() {
		err := n.cmd.Wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		n.mu.Lock()
		n.err = err
		n.mu.Unlock()
		file.Close()
		close(n.done)
	}()
	return n, nil
}

// PID is the process's, in the sandbox.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Done is closed once the process has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// LastLines returns the end of what the node wrote to stderr.
func (n *Node) LastLines() []string { return n.log.last(5) }

// Call drives the node. Where its stdout was closed because the process ended,
// the error says how it ended.
func (n *Node) Call(ctx context.Context, method string, params, result any) error {
	// A node that has stopped reading would hold up the writer for ever.
	defer context.AfterFunc(ctx, func() { n.in.Close() })()
	err := n.Control.Call(ctx, method, params, result)
	if !errors.Is(err, control.ErrClosed) {
		return err
	}
	select { // the end of a process may be known a moment after that of its stdout
	case <-n.done:
		return fmt.Errorf("node %s died: %s", n.Name, n.ended())
	case <-time.After(stopGrace):
		return err
	}
}

func (n *Node) ended() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return "it exited by itself"
	}
	return n.err.Error()
}

// Stop asks the node to leave, waits a little, and kills what is left.
func (n *Node) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, stopGrace, errors.New("the node did not stop"))
	defer cancel()
	n.Call(ctx, control.MethodStop, nil, nil)
	n.in.Close() // the end of its stdin ends a node, whatever it answered
	select {
	case <-n.done:
	case <-ctx.Done():
	}
	n.Kill()
}

// Kill ends the node and everything that it started, and waits for it.
func (n *Node) Kill() {
	Kill(n.cmd)
	<-n.done
	n.out.Close() // also where a descendant still holds the other end
	n.Control.Close()
}
