package main

import (
	"strings"

	"github.com/spf13/cobra"

	"os"

	"gauntlet/nodes/role"
)

func nodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "node ROLE",
		Short: "Run one node of the reference overlay, driven over stdin and stdout",
		Long: `Run one node of the reference overlay (` + strings.Join(role.Names(), ", ") + `): JSON-RPC 2.0, one message
a line, requests on stdin and answers on stdout, the log on stderr.`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: role.Names(),
		RunE: func(c *cobra.Command, args []string) error {
			return failed(role.Main(c.Context(), args[0], os.Stdin, os.Stdout))
		},
	}
}
