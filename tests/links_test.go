package tests

import (
	"path/filepath"
	"testing"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/verdict"
)

// What links lose and delay changes no path, and is not taken for a loss of the
// capture: packets of the call leave one host and never come to the other, the
// rest come later, and the run is as sure of itself as over perfect links.
func TestLossyLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, o := results(t, "links/lossy.yaml", "--seed", "1", "-o", dir)
	if o.status != 0 || len(r.Checks) != 5 {
		t.Errorf("exit status %d, %d checks\n%s%s", o.status, len(r.Checks), o.stdout, o.stderr)
	}
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass {
			t.Errorf("%s: %s, %s", c.ID, c.Verdict, c.Reason)
		}
	}
	ev, err := evidence.Read(filepath.Join(dir, "lossy"))
	if err != nil {
		t.Fatal(err)
	}
	if reasons := ev.Losses.Reasons(); len(reasons) != 0 {
		t.Errorf("the capture lost something: %q", reasons)
	}
	sent, received := 0, 0
	for _, f := range ev.All() {
		if f.Transport != evidence.UDP || !f.Between("alice", "bob") {
			continue
		}
		for _, way := range []evidence.Traffic{f.Forward, f.Backward} {
			sent += way.SentPackets
			received += way.ReceivedPackets
			if way.SentPackets == 0 || way.ReceivedPackets == 0 {
				continue
			}
			// 25 ± 5 ms and 10 ms one way, 40 ms and 25 ± 5 ms the other.
			if took := way.FirstReceived.Sub(way.FirstSent); took < 30*time.Millisecond {
				t.Errorf("%v: the first packet took %v, want at least 30ms", f, took)
			}
		}
	}
	// Two lossy links on the way lose 4 %. Punching loses some too, at the boxes.
	if sent < 200 || received >= sent || received < sent/2 {
		t.Errorf("of %d packets between the callers %d came, want a few lost", sent, received)
	}
}
