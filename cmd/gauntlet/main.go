// Command gauntlet answers, for each function of a peer-to-peer overlay:
// through this NAT, behind that firewall, does it get through, and by which
// path?
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
)

func main() {
	ctx := interruptible() // before the guard, which passes signals on
	sandbox.Guard()
	os.Exit(execute(ctx, os.Args[1:]))
}

// exit is an error that decides the exit status; its message, if any, is
// printed.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// status makes the error of an exit status, nil for 0.
func status(code int, err error) error {
	if code == 0 && err == nil {
		return nil
	}
	return &exit{status: code, err: err}
}

// failed makes an error one of a command that has nothing to judge.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return status(report.ExitFail, err)
}

// cause is what is printed of an error, nil where that is nothing.
func cause(err error) error {
	var e *exit
	if errors.As(err, &e) {
		return e.err
	}
	return err
}

func execute(ctx context.Context, args []string) int {
	root := command()
	root.SetArgs(args)
	root.SetOut(stdout)
	err := root.ExecuteContext(ctx)
	if stdout.err != nil {
		err = status(report.ExitBadUsage, errors.Join(cause(err), stdout.err))
	}
	if err == nil {
		return 0
	}
	var e *exit
	if !errors.As(err, &e) {
		e = &exit{status: report.ExitBadUsage, err: err} // cobra's own: usage
	}
	if e.err != nil {
		fmt.Fprintf(os.Stderr, "gauntlet: %v\n", e.err)
	}
	return e.status
}

// passing says that interrupts are a command's, which decides what they mean: they
// are passed on to it, however many come.
var passing atomic.Bool

// interruptible ends its context at the first interrupt, so that everything is
// taken down in order, and the process at the second, unless it is passing.
func interruptible() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		cancel(fmt.Errorf("interrupted (%v)", <-signals))
		for range signals {
			if !passing.Load() {
				os.Exit(128 + int(unix.SIGINT))
			}
		}
	}()
	return ctx
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "gauntlet",
		Short: "Does each function of an overlay get through this NAT, behind that firewall, and by which path?",
		Long: `Gauntlet builds a small internet in network namespaces, puts real middleboxes in
it, runs real nodes behind them, and judges each function's path from the wire:
direct, reversed, hole-punched or relayed. It needs neither root nor Docker, and
whatever it makes is gone when it ends, however it ends.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(runCommand(), pairsCommand(), judgeCommand(), listCommand(), certifyCommand(), execCommand(), upCommand(),
		doctorCommand(), nodeCommand(), mergeCommand(), cleanCommand(), imageCommand(), composeCommand(), driveCommand(), containerCommand())
	return root
}
