package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
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
once more shortened to ` + certify.Short.String() + `. With --grid, measure no preset but every mapping with
every filtering and with ports preserved and at random, and once per mapping
every other property. Exit status: 0 every box is what it declares, 1 one is
not, 2 bad usage, 3 one could not be measured.`,
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
		if err := writeCertificates(os.Stdout, worst); err != nil {
			return status(report.ExitFail, err)
		}
	} else {
		certificateTable(os.Stdout, worst)
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

// certificateTable shows one line for each box: what was measured where that is
// what is declared, both where not.
func certificateTable(w io.Writer, certificates []certify.Certificate) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatLower
	t.AppendHeader(table.Row{"box", "mapping", "filtering", "ports", "tcp mapping", "tcp filtering", "hairpin", "punch first", "unsolicited", "pool", "udp timeout", "refresh", "stops", "verdict"})
	for _, c := range certificates {
		d, m := c.Declared, c.Measured
		timeout := func(seconds int) string {
			if seconds == 0 || d.Mapping == "none" && d.Filtering == "endpoint-independent" {
				return ""
			}
			return fmt.Sprintf("%d s", seconds)
		}
		t.AppendRow(table.Row{
			abbreviations.Replace(c.Label), beside(d.Mapping, m.Mapping), beside(d.Filtering, m.Filtering), beside(d.Ports, m.Ports),
			beside(d.TCPMapping, m.TCPMapping), beside(d.TCPFiltering, m.TCPFiltering),
			beside(answer(d.Hairpin), answer(m.Hairpin)), beside(answer(d.PunchFirst), answer(m.PunchFirst)),
			beside(d.Unsolicited, m.Unsolicited), beside(d.Pool, m.Pool), beside(timeout(d.UDPTimeout), timeout(m.UDPTimeout)),
			beside(d.Refresh, m.Refresh),
			beside(stops(d.Block, d.Deny, d.Allow, d.Proxy), stops(m.Block, m.Deny, m.Allow, m.Proxy)), c.Verdict(),
		})
	}
	fmt.Fprintln(w, t.Render())
	for _, c := range certificates {
		for _, d := range c.Differences {
			fmt.Fprintf(w, "%s: %s\n", c.Label, d)
		}
	}
}

// abbreviations keep the table within a screen.
var abbreviations = strings.NewReplacer("endpoint-independent", "endpoint", "address-and-port-dependent", "address+port", "address-dependent", "address")

func beside(declared, measured string) string {
	declared, measured = abbreviations.Replace(declared), abbreviations.Replace(measured)
	switch {
	case measured == "":
		return "-" // means nothing here, or could not be measured
	case declared == measured || declared == "":
		return measured
	}
	return measured + " (declared " + declared + ")"
}

func answer(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "yes"
	}
	return "no"
}

func stops(block, deny, allow []string, proxy string) string {
	list := append(append([]string{}, block...), deny...)
	if len(allow) > 0 {
		list = append(list, "all but "+strings.Join(allow, " "))
	}
	if proxy != "" {
		list = append(list, "but by proxy: "+proxy)
	}
	return strings.Join(list, " ")
}
