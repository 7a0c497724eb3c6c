package main

import (
	"context"
	"errors"
	"runtime/debug"

	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
)

// inSandbox runs work in the sandbox: outside of one, it starts this program
// again in a new one with the same arguments, and takes over its exit status.
// work gets a folder that is gone with the sandbox.
func inSandbox(ctx context.Context, o sandbox.Options, work func(ctx context.Context, dir string) error) error {
	if sandbox.Inside() {
		dir, err := sandbox.Setup()
		if err != nil {
			return status(report.ExitBadUsage, &sandbox.Unavailable{Cause: err})
		}
		return work(ctx, dir)
	}
	code, err := sandbox.Run(ctx, o)
	var unavailable *sandbox.Unavailable
	switch {
	case errors.As(err, &unavailable):
		return status(report.ExitBadUsage, err)
	case err != nil:
		return status(report.ExitFail, err)
	}
	return status(code, nil)
}

// version is the module's, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
