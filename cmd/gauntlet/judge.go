package main

import (
	"errors"

	"github.com/spf13/cobra"

	"gauntlet/lab/judge"
	"gauntlet/lab/report"
)

func judgeCommand() *cobra.Command {
	var out outputFlags
	c := &cobra.Command{
		Use:   "judge DIR",
		Short: "Compute a run's verdicts again from its files alone",
		Long: `Compute the verdicts of a run again from the files of its report folder, and from
nothing else: the same files give the same results, byte for byte. Nothing in the
folder is changed. Exit status: that of run, by what is judged now; 2 where the
folder is no report, or a file of it is missing or cut off. Where that is evidence,
there are results too, and what it is evidence of is inconclusive.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return status(report.ExitBadUsage, err)
			}
			results, err := judge.Report(args[0])
			if err != nil && !errors.Is(err, judge.ErrEvidence) {
				return status(report.ExitBadUsage, err)
			}
			written := out.write(results)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			return orEmpty(written, results)
		},
	}
	out.add(c.Flags())
	return c
}

// orEmpty is no error where an empty shard was written, which has nothing to pass.
func orEmpty(written error, results report.Results) error {
	var e *exit
	if results.Run.Shard != "" && len(results.Checks) == 0 && errors.As(written, &e) && e.err == nil {
		return nil
	}
	return written
}
