package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"gauntlet/compose"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/scenario"
)

// Where nodes run.
const (
	backendProcess = "process"
	backendDocker  = "docker"
)

// runVariable names the run to the sandbox's init.
const runVariable = "GAUNTLET_RUN"

// containersOutside does, outside of the sandbox, what a run in containers needs
// before it: the engine and all images are there. end cleans up after a run, which
// ended so.
func containersOutside(ctx context.Context, scenarios []*scenario.Scenario) (end func(ended error), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("--backend docker needs root, which alone can put interfaces into containers; run it with sudo, or leave it out")
	}
	name, engine, end, err := startContainers(ctx, "--backend docker")
	if err != nil {
		return nil, err
	}
	_, err = engine.Image(ctx, "/proc/self/exe")
	for _, image := range run.Images(scenarios) {
		if err == nil {
			err = engine.Has(ctx, image)
		}
	}
	if err != nil {
		end(nil)
		return nil, err
	}
	os.Setenv(runVariable, name)
	return end, nil
}

// startContainers names a run and reaches the engine for it, with a watchdog
// that outlives this process. Without the flag no engine is needed. end has it
// clean up, and says what went wrong with that, if the run's own error doesn't.
func startContainers(ctx context.Context, flag string) (name string, engine *compose.Engine, end func(ended error), err error) {
	name = "gauntlet-" + strings.ToLower(rand.Text()[:8])
	if engine, err = compose.Connect(ctx, name); err != nil {
		var unavailable *compose.Unavailable
		if errors.As(err, &unavailable) {
			unavailable.Remedy += ", or leave " + flag + " out"
		}
		return "", nil, nil, err
	}
	watchdog, err := compose.Watch([]string{"/proc/self/exe", "clean", "--run", name, "--after-stdin"})
	if err != nil {
		return "", nil, nil, errors.Join(err, engine.Close())
	}
	return name, engine, func(ended error) {
		var e *exit
		orderly := ended == nil || errors.As(ended, &e) && e.err == nil && (e.status == report.ExitFail || e.status == report.ExitInconclusive)
		err := errors.Join(engine.Close(), watchdog.Close(orderly && ctx.Err() == nil))
		if err == nil || errors.As(ended, &e) && e.status == report.ExitBadUsage {
			return
		}
		fmt.Fprintf(os.Stderr, "gauntlet: %v; once the engine answers, gauntlet clean --run %s removes what is left\n", err, name)
	}, nil
}

// brokenStatus is the exit status of a run that came to no results.
func brokenStatus(err error) int {
	var unavailable *compose.Unavailable
	if errors.As(err, &unavailable) || errors.Is(err, run.ErrReport) {
		return report.ExitBadUsage
	}
	return report.ExitFail
}

// containersInside is the same engine as the sandbox's init sees it.
func containersInside(ctx context.Context) (*run.Containers, error) {
	engine, err := compose.Connect(ctx, os.Getenv(runVariable))
	if err != nil {
		return nil, err
	}
	// The last file handed on is the machine's /proc; the sandbox has its own.
	files := sandbox.Files()
	engine.Proc = files[len(files)-1]
	image, err := engine.Image(ctx, "/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return &run.Containers{Engine: engine, Image: image}, nil
}
