package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"gauntlet/nodes/control"
	"gauntlet/topo/ns"
)

// Config says how to start a node's process.
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

// StartNode starts a node as a process and attaches to its stdin and stdout.
func StartNode(c Config) (_ *Node, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start node %s: %w", c.Name, err)
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	log, err := NewLog(c.Log)
	if err != nil {
		return nil, err
	}
	p, err := start(c, log)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return Attach(c.Name, p, log, c.OnEvent), nil
}

// local is a process of this sandbox.
type local struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
}

func start(c Config, stderr io.Writer) (*local, error) {
	dir := c.WorkDir
	if dir == "" {
		dir = c.Dir
	}
	p := &local{cmd: Command(c.Argv, dir, c.Env)}
	p.cmd.Stderr = stderr
	// Where a descendant keeps stderr open, the node is done all the same.
	p.cmd.WaitDelay = stopGrace
	in, inParent, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	// Not StdoutPipe: Wait would close it under the reader.
	out, outChild, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inParent.Close())
	}
	defer outChild.Close()
	p.cmd.Stdin, p.cmd.Stdout = in, outChild
	if err := Start(p.cmd, c.Namespace, c.Privileges); err != nil {
		return nil, errors.Join(err, inParent.Close(), out.Close())
	}
	p.in, p.out = inParent, out
	return p, nil
}

func (p *local) Stdin() io.WriteCloser { return p.in }
func (p *local) Stdout() io.ReadCloser { return p.out }
func (p *local) Kill()                 { Kill(p.cmd) }
func (p *local) Stall() error          { return p.signal(unix.SIGSTOP) }
func (p *local) Resume() error         { return p.signal(unix.SIGCONT) }

// signal sends a signal to the process and all that it started.
func (p *local) signal(s syscall.Signal) error {
	if err := unix.Kill(-p.cmd.Process.Pid, s); err != nil {
		return fmt.Errorf("send %s: %w", unix.SignalName(s), err)
	}
	return nil
}

func (p *local) Wait() error {
	err := p.cmd.Wait()
	p.in.Close() // nobody reads it any more
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}
