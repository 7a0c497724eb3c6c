package tests

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gauntlet/compose/composetest"
	"gauntlet/lab/evidence"
	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// Calls go on when the relay that carries them dies, stands still or loses packets,
// whichever that is; media moves to a better path without losing a packet; relays
// at their limit are passed over; and the load and the standby messages are those of
// 2004. The lab's verdicts come out again from the files alone, byte for byte.
func TestCalls(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	r, o := results(t, "--suite", "calls", "--parallel", "3", "-o", dir)
	if o.status != report.ExitPass {
		t.Errorf("exit status %d\n%s", o.status, o.stderr)
	}
	claims := map[string]bool{}
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass {
			t.Errorf("%s: %s: %s\n%s", c.ID, c.Verdict, c.Reason, strings.Join(c.Notes, "\n"))
			continue
		}
		for _, claim := range c.Claims {
			claims[claim] = true
		}
		if c.Media != nil && strings.HasSuffix(c.ID, "/after") {
			t.Logf("%s: gap of %.0f ms", c.ID, 1000*c.Media.Gap)
		}
	}
	for _, claim := range []string{"C1", "C5", "C6", "M1", "M2", "M3", "O8"} {
		if !claims[claim] {
			t.Errorf("no check that passes reproduces %s", claim)
		}
	}
	checkStandby(t, filepath.Join(dir, "load-tcp"), r)
	stored, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if again := do(t, "judge", dir, "--format", "json"); again.stdout != string(stored) {
		t.Errorf("judged again: exit status %d, and results that differ from results.json\n%s", again.status, again.stderr)
	}
	for _, a := range callAlterations {
		t.Run(a.name, func(t *testing.T) { a.check(t, dir) })
	}
}

// checkStandby counts what both ends of a relayed call send on the relays that carry
// neither its media nor its signalling: claim C4, 3 messages a second within 10 %
// over TCP, of 18 or 19 bytes. Each is a record of its own in TLS 1.3, RFC 8446
// section 5.2: with a header of 5 bytes, a type of 1 and a tag of 16.
func checkStandby(t *testing.T, folder string, r report.Results) {
	t.Helper()
	const rate, tolerance, record = 3, 0.1, 22
	ev, err := evidence.Read(folder)
	if err != nil {
		t.Fatal(err)
	}
	call := filepath.Base(folder) + "/call/"
	var carrying []string
	for _, part := range []string{"signalling", "media"} {
		if c := named(t, r.Checks, call+part); c.Observed != nil {
			carrying = append(carrying, c.Observed.RelayNames()...)
		}
	}
	i := slices.IndexFunc(ev.Exchanges, func(ex evidence.Exchange) bool { return ex.ID == call+"media" })
	if i < 0 || len(carrying) == 0 {
		t.Fatalf("no relayed call in %s", folder)
	}
	ex := ev.Exchanges[i]
	sent := map[string]map[int]int{} // by end and relay, messages by their size
	relays := map[string]bool{}
	for _, f := range ev.Flows(ex.Since, ex.To) {
		for _, end := range []string{ex.Caller, ex.Callee} {
			relay := ev.World.Host(f.Peer(end))
			if relay == nil || !relay.Is("supernode") || slices.Contains(carrying, relay.Name) || f.Transport != evidence.TCP || f.First.Before(ex.Since) {
				continue
			}
			key := end + " to " + relay.Name
			if relays[relay.Name] = true; sent[key] == nil {
				sent[key] = map[int]int{}
			}
			for _, d := range f.Departures(end) {
				if d.Bytes > 0 && !d.Time.Before(ex.From) && !d.Time.After(ex.To) {
					sent[key][d.Bytes-record]++
				}
			}
		}
	}
	if len(relays) < 2 || len(sent) != 2*len(relays) {
		t.Errorf("both ends hold the same standby relays, two at least: expected, the wire shows %v", sent)
	}
	for key, sizes := range sent {
		n := 0
		for size, count := range sizes {
			if n += count; size != 18 && size != 19 {
				t.Errorf("standby from %s: %d messages of %d bytes; expected 18 or 19", key, count, size)
			}
		}
		if got := float64(n) / ex.To.Sub(ex.From).Seconds(); math.Abs(got-rate) > tolerance*rate {
			t.Errorf("standby from %s: %.2f messages a second, expected %d", key, got, rate)
		}
	}
}

// callAlterations are what happens afterwards to the report of calls.
var callAlterations = []alteration{
	{"another relay was killed", replace("kill-udp/exchanges.jsonl", `"action":"kill","target":"sn`, `"action":"kill","target":"x`), report.ExitInconclusive, verdict.Inconclusive, "the relays that carried then were sn"},
	{"a shorter gap was expected", replace("stall-udp/scenario.yaml", "gap: 1s", "gap: 100ms"), report.ExitFail, verdict.Fail, "expected a gap of 100ms at most, the wire shows "},
	{"media was to stay", replace("kill-tcp/scenario.yaml", "moved: true", "moved: false"), report.ExitFail, verdict.Fail, "expected the relays that carry to be the same as before"},
	{"packets were to be lost", replace("begins-relayed/scenario.yaml", "lost: 0", `lost: ">0"`), report.ExitFail, verdict.Fail, "expected lost >0"},
	{"packets were to be larger", replace("load-udp/scenario.yaml", "size: 67", "size: 69"), report.ExitFail, verdict.Fail, "expected media packets of 69 bytes, the wire shows 67"},
	{"packets were to be more", replace("load-tcp/scenario.yaml", "rate: 70", "rate: 75"), report.ExitFail, verdict.Fail, "expected 75 packets a second within 2 %, the wire shows "},
	{"an event has no place in the call", replace("kill-udp/exchanges.jsonl", `,"events":`, `,"event":`), report.ExitBadUsage, verdict.Inconclusive, `unknown field "event"`},
}

// What happens to a container is what happens to a process.
func TestContainersFail(t *testing.T) {
	composetest.Engine(t)
	var all [2][]string
	for n, backend := range []string{"process", "docker"} {
		r, o := results(t, "--suite", "calls", "--only", "kill-udp,stall-tcp,loss-udp", "--parallel", "1", "--backend", backend)
		for _, c := range r.Checks {
			if c.Verdict != verdict.Pass {
				t.Errorf("%s, %s: %s: %s", backend, c.ID, c.Verdict, c.Reason)
			}
			if c.ID == "loss-udp/call/after" && c.Observed != nil {
				c.Observed.Relays = 0 // it is chance whether the ends still hold one that loses half
			}
		}
		if all[n] = verdicts(r); len(all[n]) != 15 {
			t.Errorf("%s: %d checks\n%s", backend, len(all[n]), o.stderr)
		}
		slices.Sort(all[n])
	}
	if diff := cmp.Diff(all[0], all[1]); diff != "" {
		t.Errorf("(-processes, +containers):\n%s", diff)
	}
}
