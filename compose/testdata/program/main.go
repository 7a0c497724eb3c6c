// Command program is what the tests of package compose run in containers.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "echo": // until its standard input ends
		fmt.Fprintln(os.Stderr, "echo is up")
		io.Copy(os.Stdout, os.Stdin)
	case "deaf": // heeds nothing
		fmt.Println("deaf is up")
		signal.Ignore(os.Interrupt, syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "fail":
		os.Exit(3)
	case "task": // of a job: says which, and what its files hold
		fmt.Fprintln(os.Stderr, "task is up")
		fmt.Print(os.Getenv("GAUNTLET_TASK"))
		for _, file := range os.Args[2:] {
			data, err := os.ReadFile(file)
			fmt.Print(" ", string(data), err)
		}
	case "look": // what it may do
		status, _ := os.ReadFile("/proc/self/status")
		for s := bufio.NewScanner(strings.NewReader(string(status))); s.Scan(); {
			for _, field := range []string{"CapEff:", "CapBnd:", "NoNewPrivs:"} {
				if value, ok := strings.CutPrefix(s.Text(), field); ok {
					fmt.Println(field, strings.TrimSpace(value))
				}
			}
		}
		for _, file := range []string{"/new", "/state/new"} {
			fmt.Println("write", file, os.WriteFile(file, nil, 0o600) == nil)
		}
		io.Copy(io.Discard, os.Stdin)
	}
}
