package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gauntlet/compose"
	"gauntlet/lab/report"
)

func cleanCommand() *cobra.Command {
	var run string
	var afterStdin bool
	c := &cobra.Command{
		Use:   "clean",
		Short: "Remove what runs in containers left behind",
		Long: `Remove every container, network, volume, service and image of the Docker engine
that Gauntlet made. A run in containers cleans up after itself, also when it is
killed; this is for what is left when the engine went away under it. Runs that
are still going lose their containers too.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if afterStdin {
				err := compose.Guard(c.Context(), os.Stdin, run)
				var unavailable *compose.Unavailable
				switch {
				case errors.As(err, &unavailable): // whoever holds the other end knows
					return status(report.ExitBadUsage, nil)
				case err != nil:
					return status(report.ExitFail, err)
				}
				return nil
			}
			engine, err := compose.Connect(c.Context(), run)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer engine.Close()
			removed, err := engine.Clean(c.Context(), run)
			fmt.Fprintln(stdout, removed)
			if err != nil {
				return status(report.ExitFail, err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&run, "run", "", "only what this run made")
	c.Flags().BoolVar(&afterStdin, "after-stdin", false, "wait for the end of standard input first")
	c.Flags().MarkHidden("after-stdin")
	return c
}
