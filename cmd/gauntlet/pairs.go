package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gauntlet/lab/pairs"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/scenario"
)

type pairsFlags struct {
	pairs.Options
	output   string
	format   string
	topology string
	explain  string
	repeat   int
	seed     uint64
}

func pairsCommand() *cobra.Command {
	var f pairsFlags
	c := &cobra.Command{
		Use:   "pairs",
		Short: "The NAT-pair table: a call between every two kinds of box, expected beside observed",
		Long: `Call from behind every kind of box to behind every kind, and show the path of the
media that the wire showed beside the one expected: that of the published table
for its seven kinds (O open, F full-cone, R restricted-cone, P port-restricted,
S symmetric, Sp symmetric-sequential, U udp-blocked), that of path theory for all
others. Every call is also judged against path theory, which reasons from the
boxes' behaviours; --explain shows the reasoning for a pair without a lab.
Exit status as run's.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	flags := c.Flags()
	flags.StringVarP(&f.output, "output", "o", "", "report folder: results.json and the evidence of every lab")
	flags.StringVar(&f.format, "format", "table", "what stdout gets: table or json")
	flags.StringSliceVar(&f.Options.Presets, "preset", nil, "presets to add to both axes, comma-separated")
	flags.StringVar(&f.topology, "topology", "", "a topology file whose hosts behind boxes are both axes, in place of the seven kinds")
	flags.BoolVar(&f.Expired, "expired", false, "let all UDP mappings of both boxes run out before each call")
	flags.BoolVar(&f.Predict, "predict", false, "have the clients guess the ports of boxes that give them out in sequence")
	flags.StringVar(&f.explain, "explain", "", "CALLER,CALLEE: show how theory comes to the paths of a pair, and run nothing")
	flags.DurationVar(&f.Call, "for", pairs.DefaultCall, "how long media flows in each call")
	flags.IntVar(&f.Labs, "parallel", 4, "labs at once, over which the callers are split")
	flags.IntVar(&f.repeat, "repeat", 1, "make the table N times; a check that passes sometimes fails as a flake")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of all the lab's randomness")
	c.MarkFlagDirname("output")
	return c
}

// minCall is the shortest call whose media can be told from anything else.
const minCall = 200 * time.Millisecond

func (f *pairsFlags) run(ctx context.Context) error {
	table, err := f.table()
	if err != nil {
		return status(report.ExitBadUsage, err)
	}
	if table == nil { // explained
		return nil
	}
	if f.output != "" && !sandbox.Inside() {
		if err := prepareFolder(f.output); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	return inSandbox(ctx, sandbox.Options{}, func(ctx context.Context, dir string) error { return f.inside(ctx, dir, table) })
}

// table makes what is to run, or explains a pair and makes none.
func (f *pairsFlags) table() (*pairs.Table, error) {
	switch {
	case f.format != "table" && f.format != "json":
		return nil, fmt.Errorf("--format %s: expected table or json", f.format)
	case f.Labs < 1:
		return nil, fmt.Errorf("--parallel %d: expected 1 or more", f.Labs)
	case f.repeat < 1:
		return nil, fmt.Errorf("--repeat %d: expected 1 or more", f.repeat)
	case f.Call < minCall:
		return nil, fmt.Errorf("--for %v: expected at least %v", f.Call, minCall)
	case f.topology != "" && len(f.Options.Presets) > 0:
		return nil, errors.New("--topology and --preset: expected one of them, since a topology's hosts are the axes")
	case f.explain != "":
		return nil, f.tell()
	case f.topology == "":
		return pairs.Presets(f.Options)
	}
	s, err := scenario.Read(f.topology)
	if err != nil {
		return nil, err
	}
	return pairs.Topology(s, f.Options)
}

// tell writes the reasoning for a pair.
func (f *pairsFlags) tell() error {
	caller, callee, ok := strings.Cut(f.explain, ",")
	if !ok {
		return fmt.Errorf("--explain %s: expected CALLER,CALLEE", f.explain)
	}
	explain := pairs.Explain
	if f.topology != "" {
		s, err := scenario.Read(f.topology)
		if err != nil {
			return err
		}
		explain = pairs.ExplainHosts(s)
	}
	t, err := explain(strings.TrimSpace(caller), strings.TrimSpace(callee), f.Options)
	if err != nil {
		return fmt.Errorf("--explain: %w", err)
	}
	pairs.WriteTheory(stdout, t)
	return nil
}

func (f *pairsFlags) inside(ctx context.Context, dir string, table *pairs.Table) error {
	p := newProgress(os.Stderr, table.Scenarios, f.repeat)
	ran, err := run.Scenarios(ctx, table.Scenarios, run.Options{
		Work: dir, Report: f.output, Node: []string{"/proc/self/exe", "node"},
		Parallel: f.Labs, Repeat: f.repeat, Seed: f.seed, Version: version(), Watch: p.watch,
	})
	p.finish()
	if err != nil {
		return status(brokenStatus(err), err)
	}
	if f.output != "" {
		if err := writeResults(f.output, ran); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	results, err := table.Results(ran)
	if err != nil {
		return status(report.ExitFail, err)
	}
	if f.format == "json" {
		results.WriteJSON(stdout)
	} else {
		results.WriteTable(stdout, isTerminal(os.Stdout))
	}
	return status(report.ExitStatus(results.Checks), nil)
}
