package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"gauntlet/lab/attach"
	"gauntlet/lab/internet"
	"gauntlet/lab/judge"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/scenario"
	"gauntlet/tests"
)

type runFlags struct {
	outputFlags
	output   string
	only     string
	parallel int
	repeat   int
	seed     uint64
	keep     bool
	backend  string
	shardFlags
	swarmFlags
}

func runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [FILE…]",
		Short: "Run scenarios; without a file, the seed suite",
		Long: `Run scenarios and judge every function in them from the wire; without a file, the
seed suite. Exit status: 0 all pass, 1 something failed, 2 bad usage or a bad
scenario, 3 inconclusive only.`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), args) },
	}
	flags := c.Flags()
	flags.StringVarP(&f.output, "output", "o", "", "report folder: results.json and the evidence of every scenario")
	f.outputFlags.add(flags)
	flags.StringVar(&f.only, "only", "", "only scenarios whose ID, name, claim or step contains one of these, comma-separated")
	flags.IntVar(&f.parallel, "parallel", 2*runtime.NumCPU(), "labs at once")
	flags.IntVar(&f.repeat, "repeat", 1, "run everything N times; a check that passes sometimes fails as a flake")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of all the lab's randomness")
	flags.BoolVar(&f.keep, "keep", false, "hold the lab of a single scenario after its run until interrupted; enter it with exec --lab ID")
	flags.StringVar(&f.backend, "backend", backendProcess, "where nodes run: process (in the sandbox) or docker (each in a container; needs root)")
	f.shardFlags.add(flags)
	f.swarmFlags.add(flags)
	c.MarkFlagDirname("output")
	return c
}

func (f *runFlags) run(ctx context.Context, files []string) error {
	scenarios, err := f.scenarios(files)
	if err != nil {
		return status(report.ExitBadUsage, err)
	}
	if f.swarm {
		return f.inSwarm(ctx, scenarios, len(files) > 0)
	}
	var o sandbox.Options
	if f.keep && !sandbox.Inside() {
		socket, err := attach.Listen(scenarios[0].ID)
		if err != nil {
			return status(report.ExitBadUsage, err)
		}
		defer socket.Close()
		o.Files = append(o.Files, socket)
	}
	if f.output != "" && !sandbox.Inside() {
		if err := prepareFolder(f.output); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	if f.backend == backendDocker {
		o.Root = true
		if !sandbox.Inside() {
			end, err := containersOutside(ctx, scenarios)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer end()
			proc, err := os.Open("/proc")
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer proc.Close()
			o.Files = append(o.Files, proc)
		}
	}
	return inSandbox(ctx, o, func(ctx context.Context, dir string) error { return f.inside(ctx, dir, scenarios) })
}

// scenarios reads what is to run and says everything that is wrong with it.
func (f *runFlags) scenarios(files []string) ([]*scenario.Scenario, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	switch {
	case f.backend != backendProcess && f.backend != backendDocker:
		return nil, fmt.Errorf("--backend %s: expected process or docker", f.backend)
	case f.swarm && (f.backend == backendDocker || f.keep || f.shard != "" || f.task != ""):
		return nil, errors.New("--swarm splits the suite and runs each part in a container of its own; expected it without --backend docker, --keep and --shard")
	case f.swarm && f.replicas < 1:
		return nil, fmt.Errorf("--replicas %d: expected 1 or more", f.replicas)
	case f.parallel < 1:
		return nil, fmt.Errorf("--parallel %d: expected 1 or more", f.parallel)
	case f.repeat < 1:
		return nil, fmt.Errorf("--repeat %d: expected 1 or more", f.repeat)
	}
	all, err := read(files)
	if err != nil {
		return nil, err
	}
	var nothing []error
	for i, s := range all {
		if images := run.Images(all[i : i+1]); len(images) > 0 && f.backend != backendDocker {
			nothing = append(nothing, fmt.Errorf("%s: image %s can't run as a process; expected --backend docker", files[i], images[0]))
		}
		if err := judge.CheckID(s.ID); err != nil {
			nothing = append(nothing, err)
		}
		if len(s.Steps) == 0 {
			nothing = append(nothing, fmt.Errorf("%s: a topology without steps; expected a scenario (use it with exec or up)", files[i]))
		}
	}
	if err := errors.Join(nothing...); err != nil {
		return nil, err
	}
	all = run.Select(all, f.only)
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("--only %s: no scenario matches; gauntlet list shows them", f.only)
	case f.keep && (len(all) > 1 || f.repeat > 1):
		return nil, fmt.Errorf("--keep holds one lab; %d scenarios would run %d times: choose one with --only", len(all), f.repeat)
	}
	return f.pick(all)
}

// read reads scenario files, or the seed suite; its error holds the mistakes
// of all of them.
func read(files []string) ([]*scenario.Scenario, error) {
	if len(files) == 0 {
		return tests.Seed()
	}
	var all []*scenario.Scenario
	var wrong []error
	seen := map[string]string{}
	for _, file := range files {
		s, err := scenario.Read(file)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if other, twice := seen[s.ID]; twice {
			wrong = append(wrong, fmt.Errorf("%s: its ID %q is that of %s; expected file names that differ", file, s.ID, other))
			continue
		}
		seen[s.ID] = file
		all = append(all, s)
	}
	return all, errors.Join(wrong...)
}

// prepareFolder makes the report folder, and refuses one that holds something
// else than an earlier report.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("report folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, judge.ResultsFile)); len(entries) > 0 && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("report folder %s is not empty and holds no earlier report; expected a new folder", dir)
	}
	return nil
}

func (f *runFlags) inside(ctx context.Context, dir string, scenarios []*scenario.Scenario) error {
	p := newProgress(os.Stderr, scenarios, f.repeat)
	o := run.Options{
		Work: dir, Report: f.output, Node: []string{"/proc/self/exe", "node"},
		Parallel: f.parallel, Repeat: f.repeat, Seed: f.seed, Version: version(), Watch: p.watch,
		Shard: f.part, Suite: f.suite,
	}
	if f.backend == backendDocker {
		containers, err := containersInside(ctx)
		if err != nil {
			return status(report.ExitBadUsage, err)
		}
		defer containers.Engine.Close()
		o.Containers = containers
	}
	if f.keep {
		o.Hold = func(ctx context.Context, s *scenario.Scenario, i *internet.Internet) {
			fmt.Fprintf(os.Stderr, "lab %s is held; gauntlet exec --lab %s HOST -- COMMAND enters it, an interrupt ends it\n", s.ID, s.ID)
			if err := attach.Serve(ctx, sandbox.Files()[0], i); err != nil {
				fmt.Fprintf(os.Stderr, "gauntlet: %v\n", err)
			}
		}
	}
	results, err := run.Scenarios(ctx, scenarios, o)
	p.finish()
	if err != nil {
		return status(report.ExitFail, err)
	}
	if f.output != "" {
		if err := writeResults(f.output, results); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	err = f.write(os.Stdout, results)
	var e *exit
	if errors.As(err, &e) && e.err == nil && (f.task != "" || len(scenarios) == 0) {
		return nil // a task has done its part whatever the verdicts; a shard may be empty
	}
	return err
}

// writeResults puts results.json in its place at once.
func writeResults(dir string, r report.Results) error {
	temporary, err := os.CreateTemp(dir, ".results-*")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	defer os.Remove(temporary.Name())
	err = errors.Join(r.WriteJSON(temporary), temporary.Chmod(0o644), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(dir, judge.ResultsFile))
	}
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
