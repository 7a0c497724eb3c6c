package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A SIGTERM at any moment ends a lab, whether its sandbox is already there or can
// take signals yet, and is no bad usage.
func TestTerminate(t *testing.T) {
	topology := file(t, "pair.yaml", `topology:
  middleboxes: {box: {preset: symmetric}}
  hosts: {alice: {behind: box}, bob: {}}
`)
	for n := range 60 {
		cmd := exec.CommandContext(t.Context(), gauntlet, "up", "--name", "TestTerminate"+strconv.Itoa(n), topology)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(rand.Int64N(int64(60 * time.Millisecond)))
		<-time.NewTimer(moment).C // the moment of the signal is what is tested
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(vanishTimeout, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		if !late.Stop() {
			t.Fatalf("%v after a SIGTERM in %v the lab still was up", vanishTimeout, moment)
		}
		if cmd.ProcessState.ExitCode() == 2 {
			t.Errorf("a SIGTERM in %v: %v: %s", moment, err, &stderr)
		}
	}
}

// Interrupts of exec are the command's, however many come, and so is the exit status.
func TestInterruptsAreTheCommands(t *testing.T) {
	topology := file(t, "pair.yaml", "topology: {hosts: {alice: {}, bob: {}}}\n")
	lab := exec.CommandContext(t.Context(), gauntlet, "up", "--name", t.Name(), topology)
	out, err := lab.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		lab.Process.Signal(syscall.SIGTERM)
		lab.Wait()
	})
	bufio.NewReader(out).ReadString('\n')
	const counts = `n=0; trap 'n=$((n+1)); echo $n' INT; echo 0; while [ $n -lt 3 ]; do sleep 0.01; done; exit 7`
	for _, in := range [][]string{{topology}, {"--lab", t.Name()}} {
		cmd := exec.CommandContext(t.Context(), gauntlet, append(append([]string{"exec"}, in...), "alice", "--", "sh", "-c", counts)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // from no terminal, which would reach all at once
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := range 4 {
			if !lines.Scan() || lines.Text() != fmt.Sprint(n) {
				t.Errorf("exec %v: after %d interrupts the command wrote %q", in, n, lines.Text())
				break
			}
			if n < 3 {
				cmd.Process.Signal(syscall.SIGINT)
			}
		}
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("exec %v: %v, want the command's 7\n%s", in, cmd.ProcessState, &stderr)
		}
	}
}
