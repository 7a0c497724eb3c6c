// Package ns holds Linux network namespaces by file descriptor and runs code
// inside them. It is the only place where a thread changes its namespace.
//
// A namespace made here has no mount and no name: it lives as long as a
// descriptor, a process or a socket refers to it, and vanishes with the
// process that holds it, however that process ends.
package ns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// currentPath is the calling thread's network namespace, see
// network_namespaces(7). "self" would name the process's first thread.
const currentPath = "/proc/thread-self/ns/net"

// ErrClosed is what a method of a closed Handle returns, wrapped.
var ErrClosed = errors.New("namespace handle is closed")

// Handle is a network namespace, held by a file descriptor. Its methods may be
// called from several goroutines at once; Close waits until those in progress
// are done.
type Handle struct {
	mu   sync.RWMutex // held for reading while fd is in use
	fd   int          // -1 once closed
	here bool         // every thread of the process is in it
}

// Here returns a handle of the namespace that the whole process is in, as in a
// container. Its Do stays where it is, which needs no capability; in a process
// that has threads in several namespaces it must not be used.
func Here() (*Handle, error) {
	h, err := Current()
	if err == nil {
		h.here = true
	}
	return h, err
}

// New makes an empty network namespace: a loopback interface that is down and
// nothing else. The calling goroutine stays in the namespace it was in. It
// needs CAP_SYS_ADMIN in the user namespace of the process.
func New() (*Handle, error) {
	var made *Handle
	err := onOwnThread("make a network namespace", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: unshare: %w", err)
		}
		var err error
		made, err = Current()
		return err
	})
	if err != nil {
		if made != nil {
			err = errors.Join(err, made.Close())
		}
		return nil, err
	}
	return made, nil
}

// Current returns a handle of the namespace the calling thread is in.
func Current() (*Handle, error) {
	fd, err := openCurrent()
	if err != nil {
		return nil, err
	}
	return &Handle{fd: fd}, nil
}

// FromFile makes a handle of a descriptor that came from elsewhere, such as
// another process over a unix socket. It closes f, also when it fails. It
// refuses a descriptor that isn't a network namespace.
func FromFile(f *os.File) (*Handle, error) {
	name := f.Name()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take namespace descriptor %s: %w", name, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("take namespace descriptor %s: %w", name, err), unix.Close(fd))
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		err = fmt.Errorf("namespace type is %#x, not a network namespace", kind)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take namespace descriptor %s: %w", name, err), unix.Close(fd))
	}
	return &Handle{fd: fd}, nil
}

// FD returns the descriptor, which stays the handle's, or -1 if it is closed.
func (h *Handle) FD() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd
}

// Close gives the descriptor up. The namespace itself ends when nothing else
// refers to it. A second Close does nothing. Close must not be called from
// within Do of the same handle.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return nil
	}
	fd := h.fd
	h.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close namespace: %w", err)
	}
	return nil
}

// Do runs f inside the namespace, on a thread that nothing else uses
// meanwhile, and returns f's error. Sockets that f opens stay in the namespace
// for good, and so do processes that it starts; goroutines that it starts are
// not inside. Do may be nested, but not with a handle that another goroutine
// is closing.
//
// If the thread can't be brought back, the error says so and the goroutine
// stays locked to it: it must end without touching the network, and the
// runtime then destroys the thread.
func (h *Handle) Do(f func() error) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return fmt.Errorf("enter namespace: %w", ErrClosed)
	}
	if h.here {
		return f()
	}
	return onOwnThread("enter namespace", func() error {
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace: setns: %w", err)
		}
		return f()
	})
}

// onOwnThread locks the goroutine to its thread, runs f, which may change the
// thread's namespace, and changes it back, also when f panics.
func onOwnThread(operation string, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := openCurrent()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("%s: %w", operation, err)
	}
	defer func() {
		back := unix.Setns(home, unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, fmt.Errorf("%s: return to the namespace before: %w", operation, back))
		}
		if closed := unix.Close(home); closed != nil {
			err = errors.Join(err, fmt.Errorf("%s: close the namespace before: %w", operation, closed))
		}
	}()
	return f()
}

// openCurrent opens the calling thread's namespace.
func openCurrent() (int, error) {
	fd, err := unix.Open(currentPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the current namespace: %w", &os.PathError{Op: "open", Path: currentPath, Err: err})
	}
	return fd, nil
}
