// Command node runs one node of the reference overlay: a login server, an
// update server, a supernode or a client. It is driven over stdin and stdout as
// package control says, and logs to stderr.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"gauntlet/nodes/role"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) != 1 || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprintf(os.Stderr, "usage: node %s\n", strings.Join(role.Names(), "|"))
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := role.Main(ctx, args[0], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "node %s: %v\n", args[0], err)
		return exitFailed
	}
	return 0
}
