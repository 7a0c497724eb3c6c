// Package sandbox puts a process into namespaces of its own: user, pid, net,
// mount and ipc. Everything that Gauntlet makes is made in there, so that
// nothing touches the machine's own network and all of it vanishes with the
// process, however that dies.
//
//	gauntlet (parent)                the caller's namespaces
//	   │  clone, pipe held open
//	   └─ gauntlet (init, pid 1)     the sandbox: labs, boxes, nodes
//	         └─ nodes, commands      die with their init
//
// Two things end the init when its parent is gone: a parent-death signal, and
// end of file on a pipe whose write end only the parent holds. The signal
// alone is not enough, because the parent can die before the child has asked
// for it. Through the same pipe go the signals that the parent passes on: the
// kernel keeps none for an init that has no handler for it yet.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the environment variable by which the sandbox's init knows itself;
// its value is the number of descriptors that it was handed after the pipe.
const marker = "GAUNTLET_SANDBOX"

// pipeFD is the read end of the pipe in the init; what the parent hands on
// follows it.
const pipeFD = 3

// Unavailable says that this user can't make the namespaces, and what to do.
type Unavailable struct{ Cause error }

func (u *Unavailable) Error() string {
	text := fmt.Sprintf("this machine does not let you make user namespaces (%v): "+
		"run gauntlet as root, or see `gauntlet doctor` for the setting that forbids it", u.Cause)
	if inContainer() {
		text += "; in a container, give docker run --user=65534:65534 --security-opt=seccomp=unconfined " +
			"--security-opt=systempaths=unconfined, and --security-opt=apparmor=unconfined where the machine has AppArmor"
	}
	return text
}

// inContainer reports whether this is a container of Docker or Podman, by the
// file that each puts into its containers.
func inContainer() bool {
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Lstat(file); err == nil {
			return true
		}
	}
	return false
}

func (u *Unavailable) Unwrap() error { return u.Cause }

// inside is decided once, since what the init starts must not inherit the mark.
var inside = os.Getenv(marker) != "" && os.Getpid() == 1

// Inside reports whether this process is the init of a sandbox.
func Inside() bool { return inside }

// Options of a sandbox.
type Options struct {
	// Files are handed to the init; [Files] returns them there.
	Files []*os.File
	// Root leaves the user namespace out, so that what is inside has root's
	// power over the machine's other namespaces, such as those of containers.
	// Only root can have it.
	Root bool
}

// Run starts this executable again with the same arguments in a sandbox, waits
// for it, and returns its exit status (128 plus the signal's number if it was
// killed). Interrupts and terminations are passed on; whoever has them end ctx
// learns by the error of one that came before. Later, ctx makes no difference.
func Run(ctx context.Context, o Options) (int, error) {
	// The parent-death signal is tied to the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	r, w, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	defer w.Close()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	if ctx.Err() != nil { // what ended it may have come before Notify
		r.Close()
		return 0, fmt.Errorf("sandbox: %w", context.Cause(ctx))
	}

	cmd := command(r, o)
	err = cmd.Start()
	if err != nil && os.Geteuid() == 0 && !o.Root {
		// Root needs no user namespace to make the others.
		o.Root = true
		cmd = command(r, o)
		err = cmd.Start()
	}
	r.Close()
	if err != nil {
		return 0, &Unavailable{Cause: err}
	}

	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			// A terminal's interrupt reaches the whole foreground group, the
			// init included.
			if fromTerminal := s == unix.SIGINT || s == unix.SIGQUIT; !fromTerminal || !inForeground() {
				w.Write([]byte{byte(s.(syscall.Signal))}) // it fails where the init has ended
			}
		case err := <-waited:
			return status(cmd.ProcessState, err)
		}
	}
}

func command(pipe *os.File, o Options) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", marker, len(o.Files)))
	cmd.ExtraFiles = append([]*os.File{pipe}, o.Files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if o.Root {
		return cmd
	}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	if os.Geteuid() == 0 {
		all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = all, all
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	} else {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// inForeground reports whether this process is in the foreground group of its
// terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func status(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal()), nil
	}
	return state.ExitCode(), nil
}
