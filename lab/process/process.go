// Package process starts programs inside a lab: nodes, boxed in and driven over
// the control protocol, and commands of a person, with all that the sandbox
// has.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Privileges are the capabilities that a program may have at most.
type Privileges struct {
	// All keeps everything that the sandbox has, which is nothing outside of
	// it.
	All bool
	// Keep are the capabilities that are left otherwise (CAP_… numbers of
	// capabilities(7)).
	Keep []int
}

// nodeNice is how far nodes stand back from the lab that records them, and maxNice
// as far as anything can, see nice(2).
const (
	nodeNice = 5
	maxNice  = 19
)

// lastCapability is CAP_CHECKPOINT_RESTORE, the newest known; the kernel may
// have fewer.
const lastCapability = unix.CAP_LAST_CAP

// Start starts the command inside a network namespace with no more than the
// privileges given.
//
// Namespace, bounding set and no_new_privs belong to a thread, and a child
// gets those of the thread that forks it. So the command is started from a
// thread that is used for nothing else and is thrown away afterwards.
func Start(cmd *exec.Cmd, in *ns.Handle, p Privileges) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		started <- in.Do(func() error {
			if !p.All {
				if err := limit(p.Keep); err != nil {
					return err
				}
			}
			return cmd.Start()
		})
	}()
	return <-started
}

// limit bounds what the calling thread's children can gain.
func limit(keep []int) error {
	// The thread's children run behind the lab, which must not lose packets.
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value, as the kernel has it
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-own+nodeNice, maxNice))
	}
	if err != nil {
		return fmt.Errorf("set nice: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	kept := map[int]bool{}
	for _, c := range keep {
		kept[c] = true
	}
	for c := 0; c <= lastCapability; c++ {
		if kept[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// Command prepares an executable that leads a process group of its own, so
// that what it starts can be ended with it.
func Command(argv []string, dir string, env []string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Kill ends a started command and its whole group at once. Wait must still be
// called.
func Kill(cmd *exec.Cmd) {
	if cmd.Process != nil {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Process.Kill() // also where it has left its group
	}
}

// ExitStatus gives the status that a shell would: that of the program, or 128
// and the signal that ended it.
func ExitStatus(state *os.ProcessState) int {
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return state.ExitCode()
}
