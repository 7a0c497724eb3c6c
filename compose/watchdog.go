package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// guardTimeout bounds what a watchdog does once it has begun.
const guardTimeout = time.Minute

// Watchdog is a process beside the one that started it, which outlives it: as
// soon as that one is gone, however it went, the watchdog removes what is left
// of a run. A container ends by itself once nobody holds its leash, but a
// program that doesn't heed the end of its standard input would go on.
type Watchdog struct {
	cmd   *exec.Cmd
	leash io.WriteCloser
}

// Watch starts a watchdog: a command that calls [Guard]. It is in a session of its
// own, so that a terminal's interrupt does not reach it.
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

// settled is what the watchdog reads where the engine has nothing left to do of what
// it was asked for.
const settled = "settled"

// Close has the watchdog clean up, and waits for it. Where the engine may still be
// making what it was asked for, it waits for that too.
func (w *Watchdog) Close(nothingAsked bool) error {
	var err error
	if nothingAsked {
		_, err = io.WriteString(w.leash, settled)
	}
	err = errors.Join(err, w.leash.Close())
	if e := w.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("the watchdog: %w", e))
	}
	return err
}

// Guard is what a watchdog does: it waits for the end of its standard input and then
// cleans the run. Whoever is gone without a word may have asked the engine for
// something a moment before.
func Guard(ctx context.Context, stdin io.Reader, run string) error {
	word, _ := io.ReadAll(stdin)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), guardTimeout)
	defer cancel()
	e, err := Connect(ctx, run)
	if err != nil {
		return err
	}
	defer e.Close()
	quiet := quietTime
	if string(word) == settled {
		quiet = 0
	}
	_, err = e.clean(ctx, run, quiet)
	return err
}
