package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

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
	from     string // suite
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
seed suite or the one that --suite names. Exit status: 0 all that is offered
passes, 1 something failed or the run was interrupted, 2 bad usage or a bad
scenario, 3 inconclusive only, or nothing is offered.`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), args) },
	}
	flags := c.Flags()
	flags.StringVarP(&f.output, "output", "o", "", "report folder: results.json and the evidence of every scenario, with --swarm results.json alone")
	f.outputFlags.add(flags)
	flags.StringVar(&f.only, "only", "", "only scenarios whose ID, name, claim or step contains one of these, comma-separated")
	flags.StringVar(&f.from, "suite", tests.Suites[0], "the suite that runs without a file: "+strings.Join(tests.Suites, " or "))
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

func (f *runFlags) run(ctx context.Context, files []string) (ended error) {
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
			defer func() { end(ended) }()
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
	case !f.swarm && f.given("replicas"):
		return nil, errors.New("--replicas is of --swarm; expected both, or --shard I/N for one part")
	case f.swarm && f.replicas < 1:
		return nil, fmt.Errorf("--replicas %d: expected 1 or more", f.replicas)
	case len(files) > 0 && f.given("suite"):
		return nil, fmt.Errorf("--suite %s with files: expected one of them", f.from)
	case f.shard != "" && f.task != "":
		return nil, errors.New("--shard and --task: expected one of them")
	case f.durations != "" && !f.swarm && f.shard == "" && f.task == "":
		return nil, errors.New("--durations makes shards even; expected --swarm, --shard or --task too")
	case f.parallel < 1:
		return nil, fmt.Errorf("--parallel %d: expected 1 or more", f.parallel)
	case f.repeat < 1:
		return nil, fmt.Errorf("--repeat %d: expected 1 or more", f.repeat)
	}
	all, err := f.read(files)
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
		if len(files) > 0 && !f.swarm && !sandbox.Inside() { // a task has its own executables
			nothing = append(nothing, absent(files[i], s)...)
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
	case f.keep && f.repeat > 1:
		return nil, fmt.Errorf("--keep holds one lab; expected it without --repeat %d", f.repeat)
	case f.keep && len(all) > 1:
		return nil, fmt.Errorf("--keep holds one lab, of %d scenarios; choose one with --only", len(all))
	}
	return f.pick(all)
}

// absent says which executables of a scenario's nodes this machine hasn't, each for
// the first node that needs it.
func absent(file string, s *scenario.Scenario) (errs []error) {
	seen := map[string]bool{}
	for _, e := range s.Nodes {
		if len(e.Value.Exec) == 0 || seen[e.Value.Exec[0]] {
			continue
		}
		name := e.Value.Exec[0]
		seen[name] = true
		if strings.Contains(name, "/") && !filepath.IsAbs(name) {
			name = filepath.Join(s.Dir, name)
		}
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: node %s: %w", file, e.Name, err))
		}
	}
	return errs
}

// read reads scenario files, or a suite; its error holds the mistakes of all of
// them.
func (f *runFlags) read(files []string) ([]*scenario.Scenario, error) {
	if len(files) == 0 {
		return tests.Suite(f.from)
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
// else than an earlier report, or what an earlier run that was cut short left of one.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("report folder: %w", err)
	}
	earlier := slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == judge.ResultsFile || e.Name() == judge.ControlFolder
	})
	if len(entries) > 0 && !earlier {
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
		ctx = containers.Engine.Alive()
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
		return status(brokenStatus(err), err)
	}
	if f.output != "" {
		if err := writeResults(f.output, results); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	err = f.write(results)
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
