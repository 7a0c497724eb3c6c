package tests

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gauntlet/compose/composetest"
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

// The seed suite in containers, beside the same in processes: at most twice the
// time. The image is there before, and its build isn't counted.
func BenchmarkContainers(b *testing.B) {
	composetest.Engine(b)
	results(b, "--backend", "docker", "--only", "login-blocked")
	processes, containers := 0.0, 0.0
	for b.Loop() {
		r, _ := results(b)
		processes += r.Run.Seconds
		r, _ = results(b, "--backend", "docker")
		containers += r.Run.Seconds
	}
	b.ReportMetric(processes/float64(b.N), "processes-s")
	b.ReportMetric(containers/float64(b.N), "containers-s")
	b.ReportMetric(containers/processes, "times")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRelayFails is how long a call's ends get no media when the relay that
// carries it dies or stands still, from the wire: the larger of the two
// directions, median and longest of all calls. none is the same of the seconds
// before, when nothing happens: what this machine alone makes of it.
func BenchmarkRelayFails(b *testing.B) {
	for _, how := range []string{"kill-udp", "kill-tcp", "stall-udp", "stall-tcp"} {
		b.Run(how, func(b *testing.B) {
			var gaps, none []float64
			call := func() {
				r, _ := results(b, "--suite", "calls", "--only", how)
				for _, c := range r.Checks {
					switch {
					case c.Media == nil:
					case strings.HasSuffix(c.ID, "/after"):
						gaps = append(gaps, 1000*c.Media.Gap)
					default:
						none = append(none, 1000*c.Media.Gap)
					}
				}
			}
			for b.Loop() {
				call()
			}
			for name, values := range map[string][]float64{"gap": gaps, "none": none} {
				if len(values) != b.N {
					b.Fatalf("%d gaps measured in %d calls", len(values), b.N)
				}
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], name+"-median-ms")
				b.ReportMetric(values[len(values)-1], name+"-longest-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
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
