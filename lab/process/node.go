package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gauntlet/nodes/control"
)

// stopGrace is how long a node may take to end after it was told to.
const stopGrace = 2 * time.Second

// endGrace is how long after the end of its stdout that of a node may be known: an
// engine that is busy tells late of a container's.
const endGrace = 10 * time.Second

// Program is a running program that is driven over its standard streams: a
// process of this sandbox, or a container.
type Program interface {
	Stdin() io.WriteCloser
	Stdout() io.ReadCloser
	// Wait waits for the end and returns how it ended, nil for exit status 0.
	Wait() error
	// Kill ends it and everything that it started, at once.
	Kill()
	// Stall has all of it stand still, Resume go on.
	Stall() error
	Resume() error
}

// Node is a running node.
type Node struct {
	Name    string
	Control *control.Client

	program Program
	log     *Log
	done    chan struct{}

	mu      sync.Mutex
	err     error // how the program ended
	stalled bool
}

// Attach drives a running program as a node from now on. log is what the
// program writes its stderr to; it is closed at the program's end.
func Attach(name string, p Program, log *Log, onEvent func(control.Event)) *Node {
	n := &Node{Name: name, program: p, log: log, done: make(chan struct{})}
	n.Control = control.NewClient(p.Stdout(), p.Stdin(), onEvent)
	go func() {
		err := p.Wait()
		n.mu.Lock()
		n.err = err
		n.mu.Unlock()
		log.Close()
		close(n.done)
	}()
	return n
}

// Done is closed once the program has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// LastLines returns the end of what the node wrote to stderr.
func (n *Node) LastLines() []string { return n.log.last(5) }

// Call drives the node. Where its stdout was closed because the process ended,
// the error says how it ended.
func (n *Node) Call(ctx context.Context, method string, params, result any) error {
	// A node that has stopped reading would hold up the writer for ever.
	defer context.AfterFunc(ctx, func() { n.program.Stdin().Close() })()
	err := n.Control.Call(ctx, method, params, result)
	if !errors.Is(err, control.ErrClosed) {
		return err
	}
	late := time.NewTimer(endGrace)
	defer late.Stop()
	select {
	case <-n.done:
		return fmt.Errorf("node %s died: %s", n.Name, n.ended())
	case <-ctx.Done():
	case <-late.C:
	}
	return err
}

func (n *Node) ended() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return "it exited by itself"
	}
	return n.err.Error()
}

// Stall has the node stand still until Resume: it does nothing, and all that it
// has open stays open.
func (n *Node) Stall() error { return n.still(true, n.program.Stall) }

// Resume has a node that stands still go on.
func (n *Node) Resume() error { return n.still(false, n.program.Resume) }

// still changes whether the node stands still; one that does already, or not, is
// left as it is.
func (n *Node) still(stalled bool, change func() error) error {
	select {
	case <-n.done: // others may have its number by now
		return fmt.Errorf("node %s has ended", n.Name)
	default:
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled == stalled {
		return nil
	}
	if err := change(); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.stalled = stalled
	return nil
}

// Stop asks the node to leave, waits a little, and kills what is left.
func (n *Node) Stop(ctx context.Context) {
	n.Resume() // where it can't go on it is killed below
	ctx, cancel := context.WithTimeoutCause(ctx, stopGrace, errors.New("the node did not stop"))
	defer cancel()
	n.Call(ctx, control.MethodStop, nil, nil)
	n.program.Stdin().Close() // the end of its stdin ends a node, whatever it answered
	select {
	case <-n.done:
	case <-ctx.Done():
	}
	n.Kill()
}

// Kill ends the node and everything that it started, and waits for it.
func (n *Node) Kill() {
	n.program.Kill()
	<-n.done
	n.program.Stdout().Close() // also where a descendant still holds the other end
	n.Control.Close()
}
