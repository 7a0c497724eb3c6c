package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gauntlet/lab/certify"
	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
)

func certifyCommand() *cobra.Command {
	var format string
	var grid bool
	var repeat int
	c := &cobra.Command{
		Use:   "certify [PRESET… | --grid]",
		Short: "Measure middleboxes against what they declare",
		Long: `Measure presets, all of them if none is named, with real sockets, and show what
each declares beside what was measured. Timers are read as they are, and measured
once more by packets, shortened to ` + certify.Short.String() + ` or less. With --grid, measure no preset
but every mapping with every filtering and with ports preserved and at random,
and once per mapping every other property. Exit status: 0 every box is what it
declares, 1 one is not, 2 bad usage, 3 one could not be measured.`,
		ValidArgs: middlebox.Presets(),
		RunE: func(c *cobra.Command, args []string) error {
			cells, err := certify.PresetCells(args...)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			if grid {
				cells = certify.Grid()
			}
			switch {
			case grid && len(args) > 0:
				return status(report.ExitBadUsage, fmt.Errorf("--grid with preset %s; expected one of them", args[0]))
			case format != "table" && format != "json":
				return status(report.ExitBadUsage, fmt.Errorf("--format %q; expected table or json", format))
			case repeat < 1:
				return status(report.ExitBadUsage, fmt.Errorf("--repeat %d; expected at least 1", repeat))
			}
			return inSandbox(c.Context(), sandbox.Options{}, func(ctx context.Context, _ string) error {
				return certifyCells(ctx, cells, format, repeat)
			})
		},
	}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	c.Flags().BoolVar(&grid, "grid", false, "measure all combinations of behaviour rather than presets")
	c.Flags().IntVar(&repeat, "repeat", 1, "measure all that many times; what differs in one run, differs")
	return c
}

// certifyCells measures cells, some times over, and shows what came of it: of
// each cell its worst run.
func certifyCells(ctx context.Context, cells []certify.Cell, format string, repeat int) error {
	var worst []certify.Certificate
	differed := map[string]int{} // runs in which a cell was not what it declares
	for run := 1; run <= repeat; run++ {
		start := time.Now()
		certificates, err := certify.Cells(ctx, cells)
		if err != nil {
			return status(report.ExitInconclusive, err)
		}
		if run == 1 {
			worst = slices.Clone(certificates)
		}
		differences := 0
		for n, c := range certificates {
			if c.Certified() {
				continue
			}
			differences++
			differed[c.Label]++
			if rank(c) > rank(worst[n]) {
				worst[n] = c
			}
		}
		fmt.Fprintf(os.Stderr, "run %d of %d: %d boxes in %.1f s, %d not as declared\n", run, repeat, len(certificates), time.Since(start).Seconds(), differences)
	}
	for n, c := range worst {
		if k := differed[c.Label]; k > 0 && k < repeat {
			worst[n].Differences = append(worst[n].Differences, fmt.Sprintf("flake: %d of %d runs", k, repeat))
		}
	}
	if format == "json" {
		writeCertificates(stdout, worst)
	} else {
		certify.WriteTables(stdout, worst)
	}
	for _, c := range cells {
		if len(c.Refused) > 0 {
			fmt.Fprintf(os.Stderr, "no such box: %s: %v\n", c.Name, errors.Join(c.Refused...))
		}
	}
	return status(certified(worst), nil)
}

// rank orders certificates by what they make of the exit status.
func rank(c certify.Certificate) int {
	return slices.Index([]string{verdict.Pass, verdict.Inconclusive, verdict.Fail}, c.Verdict())
}

// certified makes the exit status of certificates.
func certified(certificates []certify.Certificate) int {
	code := report.ExitPass
	for _, c := range certificates {
		switch c.Verdict() {
		case verdict.Fail:
			return report.ExitFail
		case verdict.Inconclusive:
			code = report.ExitInconclusive
		}
	}
	return code
}

// certificateRecord is a certificate as programs read it.
type certificateRecord struct {
	Preset      string   `json:"preset"`
	Declared    any      `json:"declared"`
	Measured    any      `json:"measured"`
	Verdict     string   `json:"verdict"`
	Differences []string `json:"differences"`
	Seconds     float64  `json:"seconds"`
}

func writeCertificates(w io.Writer, certificates []certify.Certificate) error {
	records := []certificateRecord{}
	for _, c := range certificates {
		records = append(records, certificateRecord{c.Label, c.Declared, c.Measured, c.Verdict(), append([]string{}, c.Differences...), c.Seconds})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(records)
}
