package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gauntlet/compose"
	"gauntlet/lab/report"
)

// cleanTimeout bounds what a watchdog does; a person can interrupt.
const cleanTimeout = time.Minute

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
			ctx := c.Context()
			if afterStdin { // a watchdog's: whoever holds the other end is gone, or done
				io.Copy(io.Discard, os.Stdin)
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
				defer cancel()
			}
			engine, err := compose.Connect(ctx, run)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer engine.Close()
			removed, err := engine.Clean(ctx, run)
			if !afterStdin {
				fmt.Println(removed)
			}
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
