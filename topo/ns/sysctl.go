package ns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl sets one kernel parameter of the namespace, such as
// "net.ipv4.ip_forward" to "1". A dot separates the parts of a name; where an
// interface's name holds a dot, write slashes between the parts instead, as
// sysctl(8) allows.
func (h *Handle) Sysctl(name, value string) error {
	return h.Do(func() error { return WriteSysctl(name, value) })
}

// WriteSysctl is Sysctl for the namespace that the calling thread is in. It is
// meant for functions that run within Do and have several parameters to set.
// Where parameters can't be written at all, as in a container, one that has the
// value already is as good as set.
func WriteSysctl(name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	// Plain system calls, since os.File would register the descriptor with the
	// runtime's poller, which costs more than the write itself.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EROFS) {
		if now, e := ReadSysctl(name); e == nil && now == value {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, &os.PathError{Op: "open", Path: path, Err: err})
	}
	_, err = unix.Write(fd, []byte(value))
	if err != nil {
		err = fmt.Errorf("set sysctl %s to %q: %w", name, value, err)
	}
	if closed := unix.Close(fd); closed != nil {
		err = errors.Join(err, fmt.Errorf("set sysctl %s: close: %w", name, closed))
	}
	return err
}

// ReadSysctl returns one kernel parameter of the namespace that the calling
// thread is in, without the line feed at its end.
func ReadSysctl(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	value, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return strings.TrimSuffix(string(value), "\n"), nil
}

// sysctlPath returns the file below /proc/sys of a parameter's name.
func sysctlPath(name string) (string, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = strings.ReplaceAll(name, ".", "/")
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return "", errors.New("not the name of a kernel parameter")
		}
	}
	return "/proc/sys/" + path, nil
}
