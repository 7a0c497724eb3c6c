package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gauntlet/lab/attach"
	"gauntlet/lab/report"
	"gauntlet/lab/sandbox"
	"gauntlet/lab/scenario"
)

func upCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "up TOPOLOGY",
		Short: "Keep a lab up until interrupted",
		Long: `Build a topology and keep it up until interrupted. Once every host and box
answers, "lab NAME is up" is printed; then gauntlet exec --lab NAME HOST -- COMMAND
enters it, several at once.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := scenario.Read(args[0])
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			if name == "" {
				name = s.ID
			}
			var hand []*os.File
			if !sandbox.Inside() {
				socket, err := attach.Listen(name)
				if err != nil {
					return status(report.ExitBadUsage, err)
				}
				defer socket.Close()
				hand = append(hand, socket)
			}
			return inSandbox(c.Context(), sandbox.Options{Files: hand}, func(ctx context.Context, dir string) error {
				i, err := standUp(ctx, dir, s)
				if err != nil {
					return status(report.ExitFail, err)
				}
				defer i.Close()
				if _, err := fmt.Fprintf(stdout, "lab %s is up\n", name); err != nil {
					return nil // nobody would know
				}
				return failed(attach.Serve(ctx, sandbox.Files()[0], i))
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "the lab's name (default: the file's base name)")
	return c
}
