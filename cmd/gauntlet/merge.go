package main

import (
	"os"

	"github.com/spf13/cobra"

	"gauntlet/lab/report"
)

func mergeCommand() *cobra.Command {
	var f outputFlags
	c := &cobra.Command{
		Use:   "merge RESULTS…",
		Short: "Put the results of all shards of a suite together",
		Long: `Put the results of all shards of a suite together: results.json files or report
folders of runs with --shard. Exit status as that of run.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return status(report.ExitBadUsage, err)
			}
			var shards []report.Results
			for _, name := range args {
				r, err := readReport(name)
				if err != nil {
					return status(report.ExitBadUsage, err)
				}
				shards = append(shards, r)
			}
			whole, err := report.Combine(shards)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			return f.write(os.Stdout, whole)
		},
	}
	f.add(c.Flags())
	return c
}
