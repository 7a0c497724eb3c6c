package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gauntlet/compose/file"
	"gauntlet/lab/report"
	"gauntlet/lab/router"
	"gauntlet/lab/scenario"
)

// containerCommand is what the containers of gauntlet compose run beside nodes.
func containerCommand() *cobra.Command {
	c := &cobra.Command{Use: "container", Short: "What a container of gauntlet compose runs", Hidden: true}
	c.AddCommand(
		&cobra.Command{
			Use:   "router NAME",
			Short: "Be a middlebox of the topology in " + file.TopologyVariable,
			Args:  cobra.ExactArgs(1),
			RunE:  func(c *cobra.Command, args []string) error { return containerRouter(c.Context(), args[0]) },
		},
		&cobra.Command{
			Use:   "rest",
			Short: "Do nothing, for a host without a node",
			Args:  cobra.NoArgs,
			Run:   func(c *cobra.Command, _ []string) { <-c.Context().Done() },
		},
	)
	return c
}

func containerRouter(ctx context.Context, name string) error {
	s, err := scenario.Parse(file.TopologyVariable, []byte(os.Getenv(file.TopologyVariable)))
	if err != nil {
		return status(report.ExitBadUsage, err)
	}
	if err := router.Stand(s.Topology, name); err != nil {
		return status(report.ExitFail, err)
	}
	if err := router.Renounce(); err != nil {
		return status(report.ExitFail, err)
	}
	if _, err := fmt.Fprintln(stdout, file.RouterReady); err != nil {
		return nil // nobody would know
	}
	<-ctx.Done()
	return nil
}
