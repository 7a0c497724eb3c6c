// Package role puts the reference overlay's packages together to its four
// kinds of nodes: login server, update server, supernode and client. Each is
// driven through package control.
package role

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"syscall"

	"gauntlet/nodes/control"
	"gauntlet/nodes/network"
)

// Names of the roles, as a scenario has them.
const (
	RoleLogin     = "login"
	RoleUpdate    = "update"
	RoleSupernode = "supernode"
	RoleClient    = "client"
)

// Names are all roles, in the order in which one would start them.
func Names() []string { return []string{RoleLogin, RoleUpdate, RoleSupernode, RoleClient} }

// Node is a node of any role.
type Node interface {
	// Methods are what the node answers over control.
	Methods() control.Methods
	// Close ends the node at once, and waits for all that it started. It may
	// be called more than once.
	Close() error
}

// New makes a node that isn't in service yet: that is what its methods prepare
// and start are for. The node ends with ctx, or with Close.
func New(ctx context.Context, role string, nw network.Network, log *slog.Logger) (Node, error) {
	switch role {
	case RoleLogin:
		return newLogin(ctx, nw, log), nil
	case RoleUpdate:
		return newUpdate(ctx, nw, log), nil
	case RoleSupernode:
		return newSupernode(ctx, nw, log), nil
	case RoleClient:
		return newClient(ctx, nw, log), nil
	}
	return nil, fmt.Errorf("unknown role %q, want one of %v", role, Names())
}

// A client is to stay under 25 MB of private memory for as long as it runs, so
// the collector begins early. The soft limit leaves room for what the Go heap
// is not.
const (
	clientGCPercent   = 40
	clientMemoryLimit = 16 << 20
)

// Main runs one node of the operating system's network, driven over stdin and
// stdout, until stdin ends or the lab stops the node. It logs to stderr.
func Main(ctx context.Context, role string, stdin io.Reader, stdout io.WriteCloser) error {
	if role == RoleClient {
		debug.SetGCPercent(clientGCPercent)
		debug.SetMemoryLimit(clientMemoryLimit)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	n, err := New(ctx, role, network.OS(), log)
	if err != nil {
		return err
	}
	defer n.Close()
	return Drive(ctx, n, interruptible(stdin), stdout)
}

// interruptible makes a pipe from the lab one whose reading ends when it is
// closed. A file or a terminal is left as it is: there the node ends at end of
// file.
func interruptible(r io.Reader) io.Reader {
	f, ok := r.(*os.File)
	if !ok {
		return r
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return r
	}
	fd := int(f.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		return r
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// Drive serves a node's methods until in ends, ctx ends, or stop was called and
// its answer written. In the last two cases it closes in, if that can be
// closed, and returns when reading from it has ended.
func Drive(ctx context.Context, n Node, in io.Reader, out io.WriteCloser) error {
	w := &lastWord{WriteCloser: out, said: make(chan struct{})}
	methods := control.Methods{}
	for name, m := range n.Methods() {
		if name == control.MethodPrepare || name == control.MethodStart {
			m = control.Repeat(m)
		}
		methods[name] = m
	}
	if stop, ok := methods[control.MethodStop]; ok {
		methods[control.MethodStop] = func(ctx context.Context, params json.RawMessage) (any, error) {
			result, err := stop(ctx, params)
			w.arm()
			return result, err
		}
	}
	session := control.Attach(ctx, in, w, methods)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-w.said:
		case <-ctx.Done():
		case <-done:
			return
		}
		session.Stop()
		if c, ok := in.(io.Closer); ok {
			c.Close()
		}
	})
	err := session.Wait()
	close(done)
	wg.Wait()
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// lastWord tells when the first message after arm was written: the answer to
// stop.
type lastWord struct {
	io.WriteCloser
	mu    sync.Mutex
	armed bool
	said  chan struct{}
}

func (w *lastWord) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = true
}

func (w *lastWord) Write(b []byte) (int, error) {
	n, err := w.WriteCloser.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.armed = false
		close(w.said)
	}
	return n, err
}
