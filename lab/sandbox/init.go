package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// workParent is where the sandbox mounts a file system of its own: it has an
// ipc namespace of its own, so the machine's shared memory is not of use in it.
const workParent = "/dev/shm"

// Guard ends this process, and with it everything in its sandbox, as soon as
// the parent is gone, and sends it the signals that the parent passes on. Call it
// first in main, but for asking for those signals; outside a sandbox it does
// nothing.
func Guard() {
	if !Inside() {
		return
	}
	handed, _ = strconv.Atoi(os.Getenv(marker))
	os.Unsetenv(marker)
	pipe := os.NewFile(pipeFD, "parent")
	unix.CloseOnExec(pipeFD)
	go func() {
		for number := make([]byte, 1); ; {
			if n, _ := pipe.Read(number); n == 0 {
				os.Exit(128 + int(unix.SIGKILL))
			}
			unix.Kill(os.Getpid(), unix.Signal(number[0]))
		}
	}()
}

// handed is how many files the parent handed on.
var handed int

// Files returns what the parent handed on, the same files each time: one that
// nobody refers to any more would close its descriptor.
func Files() []*os.File { return files() }

var files = sync.OnceValue(func() []*os.File {
	files := make([]*os.File, handed)
	for i := range files {
		unix.CloseOnExec(pipeFD + 1 + i)
		files[i] = os.NewFile(uintptr(pipeFD+1+i), "handed on")
	}
	return files
})

// Setup makes the sandbox's own view of the system: a proc of its own pids,
// and a file system in memory whose root it returns. Files in it are gone with
// the sandbox.
func Setup() (dir string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("sandbox: make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", fmt.Errorf("sandbox: mount proc: %w", err)
	}
	if err := unix.Mount("tmpfs", workParent, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return "", fmt.Errorf("sandbox: mount tmpfs on %s: %w", workParent, err)
	}
	dir, err = os.MkdirTemp(workParent, "gauntlet-")
	if err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	work = dir
	return dir, nil
}

// work is the root that Setup made.
var work string

// Dir is the root of the sandbox's own file system, "" outside of one, which is
// how os.MkdirTemp is told the machine's folder for temporary files.
func Dir() string { return work }

// BindFile puts the file from in the place of the existing file at, in this
// sandbox only.
func BindFile(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("sandbox: bind %s on %s: %w", from, at, err)
	}
	return nil
}
