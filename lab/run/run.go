// Package run takes scenarios from a file to verdicts: it stands the internet
// up, starts the nodes, drives each function in a window of its own while
// everything is recorded, and has the recording judged.
package run

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// Options of a run.
type Options struct {
	// Work is a folder for what is needed while the run lasts.
	Work string
	// Report is the folder for results and evidence, "" to keep none.
	Report string
	// Node is the executable, with its first arguments, that takes a role as
	// its last argument and runs the reference overlay's node.
	Node []string
	// Containers runs the nodes in containers; nil runs them as processes.
	Containers *Containers
	// Parallel is how many labs run at once, Repeat how often each scenario
	// runs; 0 means 1.
	Parallel, Repeat int
	// Seed decides all randomness of the lab.
	Seed uint64
	// Version is what the results say made them.
	Version string
	// Watch is told what happens, one event at a time; it may be nil.
	Watch func(Event)
	// Hold is called with the lab of each scenario once it has been judged,
	// before it is taken down; it may be nil.
	Hold func(context.Context, *scenario.Scenario, *internet.Internet)
}

// Event is something that a person who waits wants to know.
type Event struct {
	Scenario string
	// Stage is what begins: "build", "start", a step's name, "judge", "done".
	Stage string
	// Checks are those of the scenario once it is done.
	Checks []report.Check
}

// Scenarios runs all of them and returns the results, checks in the order of
// the scenarios and their steps. It returns an error only if the run as a whole
// could not be done; whatever goes wrong within a scenario is the verdict of
// its checks.
func Scenarios(ctx context.Context, scenarios []*scenario.Scenario, o Options) (report.Results, error) {
	started := time.Now()
	repeat := max(o.Repeat, 1)
	checks := make([][][]report.Check, len(scenarios)) // by scenario, repetition, check

	var watch sync.Mutex
	tell := func(e Event) {
		if o.Watch != nil {
			watch.Lock()
			defer watch.Unlock()
			o.Watch(e)
		}
	}
	places := make(chan struct{}, max(o.Parallel, 1))
	var all sync.WaitGroup
	for i, s := range scenarios {
		checks[i] = make([][]report.Check, repeat)
		for n := range repeat {
			all.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				one := &single{
					Scenario: s, options: o, tell: tell, name: s.ID,
					random: newRandom(o.Seed, i, n),
				}
				if repeat > 1 {
					one.name = fmt.Sprintf("%s.%d", s.ID, n+1)
				}
				checks[i][n] = one.run(ctx)
				tell(Event{Scenario: one.name, Stage: "done", Checks: checks[i][n]})
			})
		}
	}
	all.Wait()
	if ctx.Err() != nil {
		return report.Results{}, fmt.Errorf("run: %w", context.Cause(ctx))
	}

	r := report.Results{Run: report.Run{
		Version: o.Version, Started: started.UTC(), Seconds: time.Since(started).Seconds(),
		Seed: o.Seed, Repeat: repeat, Kernel: kernel(),
	}}
	for i := range scenarios {
		for c := range checks[i][0] {
			var repetitions []report.Check
			for n := range repeat {
				repetitions = append(repetitions, checks[i][n][c])
			}
			r.Checks = append(r.Checks, report.Merge(repetitions))
		}
	}
	r.Run.Verdicts = report.Count(r.Checks)
	return r, nil
}

// newRandom is the source of randomness of one repetition of one scenario.
func newRandom(seed uint64, scenario, repetition int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(scenario)<<32|uint64(repetition)))
}

// Select keeps the scenarios whose ID, claims or step names contain one of the
// patterns, which are separated by commas; no pattern keeps all.
func Select(scenarios []*scenario.Scenario, patterns string) []*scenario.Scenario {
	if patterns == "" {
		return scenarios
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s *scenario.Scenario) bool {
		names := append([]string{s.ID, s.Name}, s.AllClaims()...)
		for i := range s.Steps {
			names = append(names, s.ID+"/"+s.Steps[i].Kind())
		}
		for pattern := range strings.SplitSeq(patterns, ",") {
			for _, name := range names {
				if strings.Contains(strings.ToLower(name), strings.ToLower(strings.TrimSpace(pattern))) {
					return false
				}
			}
		}
		return true
	})
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// failed makes checks of a scenario that could not be driven that far.
func failed(c report.Check, format string, args ...any) report.Check {
	c.Verdict, c.Reason = verdict.Fail, fmt.Sprintf(format, args...)
	return c
}
