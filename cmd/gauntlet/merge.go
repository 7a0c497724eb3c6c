package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"gauntlet/lab/report"
)

func mergeCommand() *cobra.Command {
	var f outputFlags
	c := &cobra.Command{
		Use:   "merge RESULTS…",
		Short: "Put the results of all shards of a suite together",
		Long: `Put the results of all shards of a suite together: results.json files or report
folders of runs with --shard, or logs of containers that ran them with --format
json. Exit status as that of run.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return status(report.ExitBadUsage, err)
			}
			var shards []report.Results
			for _, name := range args {
				r, err := report.ReadShards(resultsFile(name))
				if err != nil {
					return status(report.ExitBadUsage, err)
				}
				if slices.ContainsFunc(r, func(r report.Results) bool { return r.Run.Shard == "" }) {
					return status(report.ExitBadUsage, fmt.Errorf("%s: results of a whole run; expected those of run --shard I/N", name))
				}
				shards = append(shards, r...)
			}
			whole, err := report.Combine(shards)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			return f.write(whole)
		},
	}
	f.add(c.Flags())
	return c
}
