package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"gauntlet/lab/report"
)

// stdout is the standard output. A command whose results can't be written there has
// failed, see execute.
var stdout = &output{to: os.Stdout}

// output keeps the first error of those that writing gives.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("write the results: %w", err)
	}
	return n, err
}

// outputFlags say how results are shown.
type outputFlags struct {
	format string
	drops  bool
}

func (f *outputFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.format, "format", "table", "what stdout gets: table, json or junit")
	flags.BoolVarP(&f.drops, "drops", "v", false, "below the table, the packets that boxes dropped on the way, and what would have let each in")
}

func (f *outputFlags) check() error {
	if f.format != "table" && f.format != "json" && f.format != "junit" {
		return fmt.Errorf("--format %s: expected table, json or junit", f.format)
	}
	return nil
}

// write writes the results to stdout; its error has their exit status.
func (f *outputFlags) write(results report.Results) error {
	switch f.format {
	case "json":
		results.WriteJSON(stdout)
	case "junit":
		results.WriteJUnit(stdout)
	default:
		results.WriteTable(stdout, isTerminal(os.Stdout))
		if f.drops {
			results.WriteDrops(stdout)
		}
	}
	return status(report.ExitStatus(results.Checks), nil)
}
