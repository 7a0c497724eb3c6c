package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"gauntlet/lab/doctor"
	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
)

func doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel offers, and what would be inconclusive for lack of it",
		Long: `Try everything that Gauntlet needs of the kernel. Exit status: 0 all is there, 3
some checks would be inconclusive, 1 nothing can run.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := inSandbox(c.Context(), sandbox.Options{}, func(ctx context.Context, _ string) error {
				return examined(doctor.Examine(ctx))
			})
			var unavailable *sandbox.Unavailable
			if errors.As(err, &unavailable) {
				return examined([]doctor.Finding{doctor.Forbidden(unavailable.Cause)})
			}
			return err
		},
	}
}

// examined prints the findings and makes the exit status of them.
func examined(findings []doctor.Finding) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"feature", "here", "without it, inconclusive"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 3, WidthMax: 50, WidthMaxEnforcer: text.WrapSoft}})
	code := 0
	for _, f := range findings {
		here := "yes"
		if f.Missing != "" {
			here = "NO"
			if code == 0 {
				code = report.ExitInconclusive
			}
			if f.Vital {
				code = report.ExitFail
			}
		}
		t.AppendRow(table.Row{f.Feature, here, f.Needed})
	}
	fmt.Fprintln(stdout, t.Render())
	for _, f := range findings {
		if f.Missing != "" {
			fmt.Fprintf(stdout, "%s: %s\n    remedy: %s\n", f.Feature, f.Missing, f.Remedy)
		}
	}
	return status(code, nil)
}
