package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/pflag"

	"gauntlet/compose"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/scenario"
)

// swarmFlags say how the suite is spread over a Docker Swarm.
type swarmFlags struct {
	swarm    bool
	replicas int
	given    func(flag string) bool // says whether the command line has it
}

func (f *swarmFlags) add(flags *pflag.FlagSet) {
	f.given = flags.Changed
	flags.BoolVar(&f.swarm, "swarm", false, "run the suite in shards, as a replicated job of the Docker Swarm that this machine manages")
	flags.IntVar(&f.replicas, "replicas", 4, "with --swarm: how many shards, all at once")
}

// inSwarm runs the suite as a job, a shard a task. The seed suite is in the
// image; scenarios from files are taken along.
func (f *runFlags) inSwarm(ctx context.Context, scenarios []*scenario.Scenario, fromFiles bool) (ended error) {
	spec, err := f.job(scenarios, fromFiles)
	if err != nil {
		return status(report.ExitBadUsage, err)
	}
	if f.output != "" {
		if err := prepareFolder(f.output); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	name, engine, end, err := startContainers(ctx, "--swarm")
	if err != nil {
		return status(report.ExitBadUsage, err)
	}
	defer func() { end(ended) }()
	if spec.Image, err = engine.Image(ctx, "/proc/self/exe"); err != nil {
		return status(report.ExitBadUsage, err)
	}
	fmt.Fprintf(os.Stderr, "job %s: %d shards\n", name, spec.Tasks)
	outputs, err := engine.Job(ctx, spec, func(e compose.TaskEvent) {
		text := e.Line
		if e.State != "" {
			text = e.State
			if e.Err != "" {
				text += ": " + e.Err
			}
		}
		fmt.Fprintf(os.Stderr, "[shard %d/%d] %s\n", e.Task+1, spec.Tasks, text)
	})
	if err != nil {
		return status(brokenStatus(err), err)
	}
	whole, err := gather(outputs)
	if err != nil {
		return status(report.ExitFail, err)
	}
	if f.output != "" { // the evidence is gone with the tasks
		if err := errors.Join(run.ForgetReport(f.output), writeResults(f.output, whole)); err != nil {
			return status(report.ExitBadUsage, err)
		}
	}
	return f.write(whole)
}

// job is what each task runs: this command on its shard.
func (f *runFlags) job(scenarios []*scenario.Scenario, fromFiles bool) (compose.JobSpec, error) {
	spec := compose.JobSpec{Tasks: f.replicas, Capabilities: compose.TaskCapabilities(), Command: []string{
		"run", "--task", "--format", "json", "--only", f.only,
		"--repeat", strconv.Itoa(f.repeat), "--seed", strconv.FormatUint(f.seed, 10),
		"--parallel", strconv.Itoa((f.parallel + f.replicas - 1) / f.replicas),
	}}
	if !fromFiles {
		spec.Command = append(spec.Command, "--suite", f.from)
	}
	if f.durations != "" {
		data, err := f.shorten()
		if err != nil {
			return spec, err
		}
		spec.Files = append(spec.Files, compose.JobFile{Name: "durations.json", Data: data})
		spec.Command = append(spec.Command, "--durations", compose.JobFilePath("durations.json"))
	}
	for _, s := range scenarios {
		for _, e := range s.Nodes {
			if e.Value.Foreign() {
				return spec, fmt.Errorf("scenario %s: node %s is no node of the reference overlay, which is all that the image of a Swarm task holds", s.ID, e.Name)
			}
		}
		if fromFiles {
			name := s.ID + ".yaml"
			spec.Files = append(spec.Files, compose.JobFile{Name: name, Data: s.Source})
			spec.Command = append(spec.Command, compose.JobFilePath(name))
		}
	}
	return spec, nil
}

// shorten leaves of the earlier run what shards are made by.
func (f *runFlags) shorten() ([]byte, error) {
	earlier, err := readReport(f.durations)
	if err != nil {
		return nil, err
	}
	short := report.Results{Run: report.Run{Repeat: 1}}
	for _, c := range earlier.Checks {
		short.Checks = append(short.Checks, report.Check{Scenario: c.Scenario, Seconds: c.Seconds})
	}
	return json.Marshal(short)
}

// gather reads what each task wrote and puts it together.
func gather(outputs [][]byte) (report.Results, error) {
	var shards []report.Results
	for i, output := range outputs {
		var r report.Results
		if err := json.NewDecoder(bytes.NewReader(output)).Decode(&r); err != nil {
			return report.Results{}, fmt.Errorf("shard %s wrote no results: %w", run.Shard{Index: i, Of: len(outputs)}, err)
		}
		shards = append(shards, r)
	}
	return report.Combine(shards)
}
