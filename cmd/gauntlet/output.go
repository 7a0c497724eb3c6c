package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"gauntlet/lab/report"
)

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

// write writes the results; its error has their exit status.
func (f *outputFlags) write(w *os.File, results report.Results) error {
	var err error
	switch f.format {
	case "json":
		err = results.WriteJSON(w)
	case "junit":
		err = results.WriteJUnit(w)
	default:
		results.WriteTable(w, isTerminal(w))
		if f.drops {
			results.WriteDrops(w)
		}
	}
	if err != nil {
		return status(report.ExitBadUsage, fmt.Errorf("write the results: %w", err))
	}
	return status(report.ExitStatus(results.Checks), nil)
}
