package capture

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInUserNamespace runs TestRecord and TestSync in a user namespace that
// maps the caller alone, where nobody has rights on the machine itself.
func TestInUserNamespace(t *testing.T) {
	const inside = "GAUNTLET_TEST_IN_USER_NAMESPACE"
	if os.Getenv(inside) != "" {
		return
	}
	command := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^(TestRecord|TestSync)$")
	command.Env = append(os.Environ(), inside+"=1", "GAUNTLET_NO_SKIP=1")
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	output, err := command.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) {
		missing(t, "this machine gives no user namespace", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
