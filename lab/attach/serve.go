package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gauntlet/lab/process"
	"gauntlet/topo/ns"
)

// Lab is what can be entered.
type Lab interface {
	Namespace(name string) *ns.Handle
	Names() []string
	// Environment is what a program on a host is told of the network.
	Environment(host string) []string
}

// Serve starts commands in the lab for those who ask at the listening socket,
// until ctx ends; then it kills the commands and returns once they are gone.
func Serve(ctx context.Context, socket *os.File, lab Lab) error {
	l, err := net.FileListener(socket)
	socket.Close()
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	listener := l.(*net.UnixListener)
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		c, err := listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("attach: %w", err)
		}
		serving.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if sameUser(c) {
				serve(c, lab)
			}
		})
	}
}

// sameUser says whether the other end is this user's, whom the sandbox knows
// by the id that it has in there itself.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return same
}

func serve(c *net.UnixConn, lab Lab) {
	var r request
	files, err := receive(c, &r)
	defer closeAll(files)
	if err != nil || len(files) != handedDescriptors || len(r.Argv) == 0 {
		send(c, answer{Error: "not a request to run a command", Status: StatusFailed})
		return
	}
	in := lab.Namespace(r.Host)
	if in == nil {
		send(c, answer{Error: fmt.Sprintf("no host or box %q; there are %s", r.Host, strings.Join(lab.Names(), ", ")), Status: StatusFailed})
		return
	}
	cmd := process.Command(r.Argv, r.Dir, append(r.Env, lab.Environment(r.Host)...))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	if err := process.Start(cmd, in, process.Privileges{All: true}); err != nil {
		send(c, answer{Error: err.Error(), Status: StartStatus(err)})
		return
	}
	send(c, answer{Started: true})

	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	asking := make(chan struct{})
	go func() { // until the other end goes away
		defer close(asking)
		for {
			var r request
			files, err := receive(c, &r)
			closeAll(files)
			if err != nil {
				return
			}
			unix.Kill(-cmd.Process.Pid, syscall.Signal(r.Signal))
		}
	}()
	select {
	case <-ended:
		send(c, answer{Status: process.ExitStatus(cmd.ProcessState)})
		c.Close() // what it left in the background goes on
		<-asking
	case <-asking:
		process.Kill(cmd)
		<-ended
	}
}

// StartStatus is the exit status for a command that did not start.
func StartStatus(err error) int {
	switch {
	case errors.Is(err, os.ErrNotExist), strings.Contains(err.Error(), "executable file not found"):
		return StatusNotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return StatusCannotRun
	}
	return StatusFailed
}
