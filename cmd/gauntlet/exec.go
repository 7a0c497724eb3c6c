package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gauntlet/lab/attach"
	"gauntlet/lab/internet"
	"gauntlet/lab/process"
	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/scenario"
)

// answerTimeout bounds how long a new lab may take until all answers.
const answerTimeout = 20 * time.Second

func execCommand() *cobra.Command {
	var lab string
	c := &cobra.Command{
		Use:   "exec TOPOLOGY HOST -- COMMAND…",
		Short: "Run a command in a host or box of a topology, or of a lab that is up",
		Long: `Build a topology, run any command in one of its hosts or boxes, and take it down:

  gauntlet exec TOPOLOGY HOST -- COMMAND…
  gauntlet exec --lab NAME HOST -- COMMAND…     in a lab that gauntlet up keeps

Hosts find each other by name. The exit status is the command's; 2 if the topology
is bad, 125 if Gauntlet itself failed, 126 if the command can't be run, 127 if there
is none.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			before := c.ArgsLenAtDash()
			if before < 0 {
				before = len(args)
			}
			names, argv := args[:before], args[before:]
			wanted := 2
			if lab != "" {
				wanted = 1
			}
			if len(names) != wanted || len(argv) == 0 {
				return status(attach.StatusFailed, errors.New("usage: gauntlet "+c.Use+", or gauntlet exec --lab NAME HOST -- COMMAND…"))
			}
			host := names[wanted-1]
			passing.Store(!sandbox.Inside()) // whoever is inside takes them until the command has begun
			if lab != "" {
				return status(attach.Enter(lab, host, argv))
			}
			s, err := scenario.Read(names[0])
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			return inSandbox(c.Context(), sandbox.Options{}, func(ctx context.Context, dir string) error {
				return status(execIn(ctx, dir, s, host, argv))
			})
		},
	}
	c.Flags().StringVar(&lab, "lab", "", "enter the lab of this name instead of building a topology")
	return c
}

// execIn runs one command in one host of a topology of its own.
func execIn(ctx context.Context, dir string, s *scenario.Scenario, host string, argv []string) (int, error) {
	i, err := standUp(ctx, dir, s)
	if err != nil {
		return attach.StatusFailed, err
	}
	defer i.Close()
	in := i.Namespace(host)
	if in == nil {
		return attach.StatusFailed, fmt.Errorf("no host or box %q; there are %s", host, strings.Join(i.Names(), ", "))
	}
	cmd := process.Command(argv, "", append(os.Environ(), i.Environment(host)...))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{} // the terminal's own group, so that it can be read from
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	if err := process.Start(cmd, in, process.Privileges{All: true}); err != nil {
		return attach.StartStatus(err), err
	}
	passing.Store(true)
	defer passing.Store(false)
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case <-ended:
			return process.ExitStatus(cmd.ProcessState), nil
		}
	}
}

// standUp builds a topology for a person: every host and box answers, names
// are known, and what the kernel lacks is said.
func standUp(ctx context.Context, dir string, s *scenario.Scenario) (*internet.Internet, error) {
	i, err := internet.Up(ctx, s.Topology)
	if err != nil {
		return nil, err
	}
	for _, lack := range append(i.Missing(), i.Unserved(i.Names()...)...) {
		fmt.Fprintf(os.Stderr, "gauntlet: %s\n", lack)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("not everything answers after %v", answerTimeout))
	defer cancel()
	if err := i.Answer(ctx); err != nil {
		i.Close()
		return nil, err
	}
	hosts := filepath.Join(dir, "hosts")
	err = os.WriteFile(hosts, []byte(i.HostsFile()), 0o644)
	if _, missing := os.Stat("/etc/hosts"); err == nil && missing == nil {
		err = sandbox.BindFile(hosts, "/etc/hosts")
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}
