package tests

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settled is how long after login a client's memory is read.
const settled = 60 * time.Second

// What a client's process takes once it has been logged in for a minute: its
// private memory, RssAnon of proc(5). At most 25 MB.
func BenchmarkClientMemory(b *testing.B) {
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), gauntlet, "run", "--keep", "--only", "login-blocked")
		cmd.Env = append(os.Environ(), "GAUNTLET_TEST_MARK=memory")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "is held") {
				break
			}
		}
		time.Sleep(settled) // the time is what the figure is about
		b.ReportMetric(residentMB(b, cmd.Process.Pid), "RssAnon-MB")
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	b.ReportMetric(0, "ns/op")
}

// residentMB is the largest RssAnon of the clients that descend from a process.
func residentMB(b *testing.B, ancestor int) float64 {
	b.Helper()
	parents := map[int]int{}
	var clients []int
	statuses, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range statuses {
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		if line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); bytes.HasSuffix(line, []byte("\x00node\x00client\x00")) {
			clients = append(clients, pid)
		}
	}
	most := 0.0
	for _, pid := range clients {
		up := pid
		for up > 1 && up != ancestor {
			up = parents[up]
		}
		if up != ancestor {
			continue
		}
		status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				most = max(most, kb/1000)
			}
		}
	}
	if most == 0 {
		b.Fatal("no client is running")
	}
	return most
}
