package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/verdict"
	"gauntlet/nodes/control"
)

// faultyPrefix marks the argument by which this test binary is a node.
const faultyPrefix = "faulty:"

// faultyNode is a node that does as it is told until it doesn't.
func faultyNode(fault string) {
	fmt.Fprintln(os.Stderr, "a line on stderr before the fault", fault)
	var session *control.Session
	misbehave := func(at string) {
		if fault == "" || !strings.HasSuffix(fault, "-at-"+at) {
			return
		}
		switch strings.TrimSuffix(fault, "-at-"+at) {
		case "die":
			os.Exit(3)
		case "hang":
			select {}
		case "rubbish":
			fmt.Println("Hello, world!")
			select {}
		case "flood":
			for {
				fmt.Print(strings.Repeat("x", 1<<16))
			}
		case "chatter":
			for session.Event(context.Background(), "tick", nil) == nil {
			}
		}
	}
	session = control.Attach(context.Background(), os.Stdin, os.Stdout, control.Methods{
		control.MethodPrepare: func(context.Context, json.RawMessage) (any, error) {
			misbehave("prepare")
			return control.PrepareResult{Functions: []string{"greet"}}, nil
		},
		control.MethodStart: func(context.Context, json.RawMessage) (any, error) {
			misbehave("start")
			return nil, nil
		},
		"greet": func(context.Context, json.RawMessage) (any, error) {
			misbehave("call")
			if c, err := net.Dial("udp", "198.18.200.1:9"); err == nil { // a try that the wire shows
				c.Write([]byte("hello"))
				c.Close()
			}
			return nil, errors.New("nobody is there to be greeted")
		},
	})
	session.Wait()
}

// A node that dies, hangs, floods its stdout or writes rubbish on it fails its
// check, with the reason and the node's last lines; other scenarios go on.
func TestFaultyNodes(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	healthy := file(t, "healthy.yaml", faultScenario(self, "none"))
	for _, test := range []struct{ fault, reason string }{
		{"die-at-prepare", "alice: prepare: node alice died: exit status 3"},
		{"die-at-start", "alice: start: node alice died: exit status 3"},
		{"die-at-call", "alice: greet: node alice died: exit status 3"},
		{"hang-at-call", "no answer from alice within 1s"},
		{"hang-at-prepare", "not in service after"},
		{"rubbish-at-call", `not a JSON-RPC message: "Hello, world!"`},
		{"flood-at-call", "a line of more than 1048576 bytes"},
		{"chatter-at-call", "more than 10000 events"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			r, o := results(t, healthy, file(t, "faulty.yaml", faultScenario(self, test.fault)))
			if o.status != 1 || len(r.Checks) != 2 {
				t.Fatalf("status %d, %d checks\n%s", o.status, len(r.Checks), o.stderr)
			}
			if c := r.Checks[0]; c.Verdict != verdict.Pass {
				t.Errorf("the healthy scenario: %s: %s", c.Verdict, c.Reason)
			}
			c := r.Checks[1]
			if c.Verdict != verdict.Fail || !strings.Contains(c.Reason, test.reason) {
				t.Errorf("%s: %s\nwant fail: %s", c.Verdict, c.Reason, test.reason)
			}
			if !strings.Contains(c.Reason, "a line on stderr before the fault "+test.fault) {
				t.Errorf("the node's last lines are missing: %s", c.Reason)
			}
		})
	}
}

// A node that is the scenario file's neighbour is found, whatever folder the file is
// named from.
func TestNeighbour(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := file(t, "neighbour.yaml", faultScenario("./node", "none"))
	if err := os.Symlink(self, filepath.Join(filepath.Dir(name), "node")); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(filepath.Dir(name), "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), gauntlet, "run", "../neighbour.yaml")
	cmd.Dir = elsewhere
	if o := finish(t, cmd); o.status != 0 {
		t.Errorf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// A scenario gets the same payloads alone as beside others, as it does in a shard.
func TestSamePayloads(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	first, second := file(t, "first.yaml", faultScenario(self, "none")), file(t, "second.yaml", faultScenario(self, "none"))
	payload := func(files ...string) int64 {
		dir := t.TempDir()
		if o := do(t, append([]string{"run", "-o", dir}, files...)...); o.status != 0 {
			t.Fatalf("exit status %d\n%s", o.status, o.stderr)
		}
		text, err := os.ReadFile(filepath.Join(dir, "second", evidence.ExchangesFile))
		var exchange evidence.Exchange
		if err := errors.Join(err, json.Unmarshal(text, &exchange)); err != nil {
			t.Fatal(err)
		}
		return exchange.Payload
	}
	if alone, beside := payload(second), payload(first, second); alone != beside {
		t.Errorf("%d bytes alone, %d beside another", alone, beside)
	}
}

// faultScenario has alice greet bob, who hears nothing of it.
func faultScenario(self, fault string) string {
	return fmt.Sprintf(`topology: {hosts: {alice: {}, bob: {}}}
nodes:
  alice: {exec: [%q, %q]}
  bob: {exec: [%q, %q]}
steps:
  - exchange: {function: greet, caller: alice, callee: bob}
    expect: {path: failed}
    within: 1s
`, self, faultyPrefix+fault, self, faultyPrefix+"none")
}
