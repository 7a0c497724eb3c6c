package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gauntlet/compose"
	"gauntlet/lab/report"
)

func imageCommand() *cobra.Command {
	tag := compose.Latest
	c := &cobra.Command{
		Use:   "image",
		Short: "Build a container image of this binary: the whole testbed in one container",
		Long: `Build an image of the Docker engine that holds this binary and nothing else, and
say how to run it. The whole testbed runs in one container of it, with no
capability, no network and a read-only root; gauntlet compose makes a file that
runs every node in a container of its own.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			engine, err := compose.Connect(c.Context(), "")
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer engine.Close()
			size, needs, err := engine.Testbed(c.Context(), "/proc/self/exe", tag)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			fmt.Fprintf(stdout, "%s, %.1f MB\n\n", tag, float64(size)/1e6)
			flags := compose.Spared()
			for _, n := range needs {
				flags = append(flags, n.Flag)
			}
			fmt.Fprintf(stdout, "docker run --rm %s %s run\n\n", strings.Join(flags, " "), tag)
			for _, n := range needs {
				fmt.Fprintf(stdout, "%s: %s\n", n.Flag, n.Why)
			}
			return nil
		},
	}
	c.Flags().StringVar(&tag, "tag", tag, "the image's name")
	return c
}
