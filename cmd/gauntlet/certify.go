package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

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
	c := &cobra.Command{
		Use:   "certify [PRESET…]",
		Short: "Measure middleboxes against what they declare",
		Long: `Measure presets, all of them if none is named, with real sockets, and show what
each declares beside what was measured. UDP timers are read as they are, and
measured once more shortened to ` + certify.Short.String() + `. Exit status: 0 every preset is what it
declares, 1 one is not, 2 bad usage, 3 one could not be measured.`,
		ValidArgs: middlebox.Presets(),
		RunE: func(c *cobra.Command, args []string) error {
			for _, name := range args {
				if _, ok := middlebox.Preset(name); !ok {
					return status(report.ExitBadUsage, fmt.Errorf("unknown preset %q; there are %s", name, strings.Join(middlebox.Presets(), ", ")))
				}
			}
			if format != "table" && format != "json" {
				return status(report.ExitBadUsage, fmt.Errorf("--format %q; expected table or json", format))
			}
			return inSandbox(c.Context(), sandbox.Options{}, func(ctx context.Context, _ string) error {
				certificates, err := certify.Presets(ctx, args...)
				if err != nil {
					return status(report.ExitInconclusive, err)
				}
				if format == "json" {
					err = writeCertificates(os.Stdout, certificates)
				} else {
					certificateTable(os.Stdout, certificates)
				}
				if err != nil {
					return status(report.ExitFail, err)
				}
				return status(certified(certificates), nil)
			})
		},
	}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
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

// certificateTable shows one line for each preset: what was measured where that
// is what is declared, both where not.
func certificateTable(w io.Writer, certificates []certify.Certificate) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatLower
	t.AppendHeader(table.Row{"preset", "mapping", "filtering", "ports", "hairpin", "punch first", "unsolicited", "udp timeout", "refresh", "stops", "verdict"})
	for _, c := range certificates {
		d, m := c.Declared, c.Measured
		timeout := func(seconds int) string {
			if seconds == 0 || d.Mapping == "none" && d.Filtering == "endpoint-independent" {
				return ""
			}
			return fmt.Sprintf("%d s", seconds)
		}
		t.AppendRow(table.Row{
			c.Label, beside(d.Mapping, m.Mapping), beside(d.Filtering, m.Filtering), beside(d.Ports, m.Ports),
			beside(answer(d.Hairpin), answer(m.Hairpin)), beside(answer(d.PunchFirst), answer(m.PunchFirst)),
			beside(d.Unsolicited, m.Unsolicited), beside(timeout(d.UDPTimeout), timeout(m.UDPTimeout)),
			beside(d.Refresh, m.Refresh),
			beside(stops(d.Block, d.Deny, d.Allow), stops(m.Block, m.Deny, m.Allow)), c.Verdict(),
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

func stops(block, deny, allow []string) string {
	list := append(append([]string{}, block...), deny...)
	if len(allow) > 0 {
		list = append(list, "all but "+strings.Join(allow, " "))
	}
	return strings.Join(list, " ")
}
