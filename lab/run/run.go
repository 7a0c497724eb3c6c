// Package run takes scenarios from a file to verdicts: it stands the internet
// up, starts the nodes, drives each function in a window of its own while
// everything is recorded, and has the recording judged.
package run

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/judge"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
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
	// Shard says which part of a suite the scenarios are, and Suite has the IDs
	// of all of it; the zero values are the whole.
	Shard Shard
	Suite []string
	// Seed decides all randomness of the lab.
	Seed uint64
	// Version is what the results say made them.
	Version string
	// RingBytes is the kernel's buffer for each tap, 0 the capture's default;
	// a small one loses packets.
	RingBytes int
	// Built and Certified are called with each internet once it stands, and
	// once its boxes have been measured; either may be nil. By them a test makes
	// a box that isn't what it says.
	Built, Certified func(*internet.Internet) error
	// Changed is called with each internet in which what a step changes a box
	// into is measured, before it is; it may be nil. It is to tests as Built is.
	Changed func(*internet.Internet) error
	// Turned is called with each internet after every step that changed a box in
	// it; it may be nil. It is to tests as Built is.
	Turned func(*internet.Internet) error
	// Watch is told what happens, one event at a time; it may be nil.
	Watch func(Event)
	// Hold is called with the lab of each scenario once it has been judged,
	// before it is taken down; it may be nil. That ctx ends meanwhile ends the
	// holding, and takes nothing from the results.
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

// ErrReport says that the report folder can't be written.
var ErrReport = errors.New("the report folder can't be written")

// Scenarios runs all of them and returns the results, checks in the order of
// the scenarios and their steps. It returns an error only if the run as a whole
// could not be done; whatever goes wrong within a scenario is the verdict of
// its checks.
func Scenarios(ctx context.Context, scenarios []*scenario.Scenario, o Options) (report.Results, error) {
	for _, s := range scenarios {
		if err := judge.CheckID(s.ID); err != nil {
			return report.Results{}, fmt.Errorf("run: %w", err)
		}
	}
	if o.Report != "" {
		if err := ForgetReport(o.Report); err != nil {
			return report.Results{}, err
		}
	}
	started := time.Now()
	repeat := max(o.Repeat, 1)
	judged := make([][]judge.Judged, len(scenarios)) // by scenario and repetition
	var cut report.Control

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
	if o.Hold != nil {
		// Before: ctx may have ended after.
		cut = controlOnce(ctx, o)
	} else {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			cut = controlOnce(ctx, o)
		})
	}
	var broken atomic.Bool // a scenario was, by the end of ctx
	for i, s := range scenarios {
		judged[i] = make([]judge.Judged, repeat)
		for n := range repeat {
			all.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				one := &single{
					Scenario: s, options: o, tell: tell, name: judge.Folder(s.ID, n, repeat),
					random: newRandom(o.Seed, s.ID, n),
				}
				judged[i][n] = one.run(ctx)
				if !one.done {
					broken.Store(true)
				}
			})
		}
	}
	all.Wait()
	if ctx.Err() != nil && (o.Hold == nil || broken.Load()) {
		return report.Results{}, fmt.Errorf("run: %w", context.Cause(ctx))
	}

	about := judge.Run{
		Version: o.Version, Started: started.UTC(), Seconds: time.Since(started).Seconds(),
		Seed: o.Seed, Repeat: repeat, Kernel: kernel(),
	}
	for _, s := range scenarios {
		about.Scenarios = append(about.Scenarios, s.ID)
	}
	if o.Shard.Of > 0 {
		about.Shard, about.Suite = o.Shard.String(), o.Suite
	}
	if o.Report != "" {
		if err := judge.WriteRun(o.Report, about); err != nil {
			return report.Results{}, fmt.Errorf("%w: %w", ErrReport, err)
		}
	}
	return judge.Results(about, judged, []report.Control{cut}), nil
}

// ForgetReport has a folder be no report any more, since what it says of an earlier
// run isn't true of the next. Its error is ErrReport.
func ForgetReport(dir string) error {
	for _, name := range []string{judge.RunFile, judge.ResultsFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrReport, err)
		}
	}
	return nil
}

// newRandom is the source of randomness of one repetition of one scenario, the same
// whichever scenarios run beside it.
func newRandom(seed uint64, id string, repetition int) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %d %s", seed, repetition, id))))
}

// Select keeps the scenarios whose ID, claims or step names contain one of the
// patterns, which are separated by commas; an empty string keeps all, while an empty
// one among several patterns is none.
func Select(scenarios []*scenario.Scenario, patterns string) []*scenario.Scenario {
	if patterns == "" {
		return scenarios
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s *scenario.Scenario) bool {
		names := append([]string{s.ID, s.Name}, s.AllClaims()...)
		for i := range s.Steps {
			names = append(names, s.ID+"/"+s.Steps[i].Kind())
		}
		for pattern := range strings.SplitSeq(strings.ToLower(patterns), ",") {
			pattern = strings.TrimSpace(pattern)
			for _, name := range names {
				if pattern != "" && strings.Contains(strings.ToLower(name), pattern) {
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
