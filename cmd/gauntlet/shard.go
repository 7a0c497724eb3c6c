package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"gauntlet/compose"
	"gauntlet/lab/judge"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/scenario"
)

// shardFlags say which part of the suite is run.
type shardFlags struct {
	shard     string
	task      string
	durations string

	part  run.Shard
	suite []string // IDs of the whole suite
}

// fromEnvironment stands for the value of the task variable.
const fromEnvironment = "$" + compose.TaskVariable

func (f *shardFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.shard, "shard", "", "run part I of N, such as 1/4; gauntlet merge puts the results together")
	flags.StringVar(&f.durations, "durations", "", "results.json or report folder of an earlier run, by which shards are made even")
	flags.StringVar(&f.task, "task", "", "be a task of a job: --shard counted from 0, and exit status 0 once the results are written")
	flags.Lookup("task").NoOptDefVal = fromEnvironment
}

// pick returns the scenarios of the shard that the flags ask for.
func (f *shardFlags) pick(all []*scenario.Scenario) ([]*scenario.Scenario, error) {
	var err error
	switch {
	case f.task != "":
		value, source := f.task, "--task"
		if value == fromEnvironment {
			value, source = os.Getenv(compose.TaskVariable), compose.TaskVariable
		}
		if f.part.Index, f.part.Of, err = compose.Task(value); err != nil {
			err = fmt.Errorf("%s: %w", source, err)
		}
	case f.shard != "":
		f.part, err = run.ParseShard(f.shard)
	}
	if err != nil {
		return nil, err
	}
	seconds, err := f.seconds()
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		f.suite = append(f.suite, s.ID)
	}
	return f.part.Pick(all, seconds), nil
}

// seconds are those that each scenario took in the earlier run, if one is given.
func (f *shardFlags) seconds() (map[string]float64, error) {
	if f.durations == "" {
		return nil, nil
	}
	earlier, err := readReport(f.durations)
	if err != nil {
		return nil, err
	}
	return run.Durations(earlier), nil
}

// readReport reads results.json, or that of a report folder.
func readReport(name string) (report.Results, error) {
	return report.ReadResults(resultsFile(name))
}

// resultsFile is the file itself, or results.json of a report folder.
func resultsFile(name string) string {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return filepath.Join(name, judge.ResultsFile)
	}
	return name
}
