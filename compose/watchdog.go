package compose

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Watchdog is a process beside the one that started it, which outlives it: as
// soon as that one is gone, however it went, the watchdog removes what is left
// of a run. A container ends by itself once nobody holds its leash, but a
// program that doesn't heed the end of its standard input would go on.
type Watchdog struct {
	cmd   *exec.Cmd
	leash io.Closer
}

// Watch starts a watchdog: a command that cleans the run once its standard
// input ends. It is in a session of its own, so that a terminal's interrupt
// does not reach it.
func Watch(argv []string) (*Watchdog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), w.Close())
	}
	return &Watchdog{cmd: cmd, leash: w}, nil
}

// Close has the watchdog clean up, and waits for it.
func (w *Watchdog) Close() error {
	err := w.leash.Close()
	if e := w.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("the watchdog: %w", e))
	}
	return err
}
