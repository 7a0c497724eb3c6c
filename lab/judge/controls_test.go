package judge

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

const canaryScenario = `topology:
  middleboxes: {isp: {preset: port-restricted}, wall: {preset: WALL, behind: isp}}
  hosts: {alice: {behind: wall}, bob: {}}
nodes: {alice: {role: client}, bob: {role: client}}
steps:
  - search: {caller: alice, callee: bob}
    expect: {path: direct}
`

var nobody = netip.MustParseAddrPort("198.18.255.254:9")

// recorded is a folder in which alice searches for bob, after a canary was sent
// from her host.
func recorded(t *testing.T, wall string, do func(r *evidencetest.Recording)) string {
	t.Helper()
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{evidencetest.Host("alice", "10.0.2.2", "wall"), evidencetest.Host("bob", "198.18.1.9", "")},
		Boxes: []evidence.Box{
			evidencetest.Box("isp", "", "198.18.1.1", "10.0.1.0/24"), evidencetest.Box("wall", "isp", "10.0.1.2", "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{
			evidencetest.NAT("isp", evidence.AddressAndPortDependent), evidencetest.NAT("wall", evidence.AddressAndPortDependent),
		},
	})
	do(r)
	canary := r.Socket(evidence.UDP, "alice", 4000)
	sizes := []int{201, 202, 203}
	for _, size := range sizes {
		canary.Send(nobody, size)
	}
	begin := r.Now
	r.Block = map[string]string{}
	r.Socket(evidence.UDP, "alice", 4001).Send(netip.MustParseAddrPort("198.18.1.9:7"), 901)
	r.Exchange(evidence.Exchange{ID: "x/search", Function: "search", Caller: "alice", Callee: "bob", Since: begin, From: begin, To: r.Now, Payload: 901})
	dir := r.Write()
	d := Driven{
		Recorded: true, Stood: true, Checks: []DrivenCheck{{ID: "x/search"}},
		Canaries: []Canary{{Host: "alice", Boxes: []string{"wall", "isp"}, Source: canary.Local, Destination: nobody, Sizes: sizes, Sent: evidencetest.Start}},
	}
	source := strings.Replace(canaryScenario, "WALL", wall, 1)
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, ScenarioFile), []byte(source), 0o644),
		WriteDriven(dir, d), WriteJSON(dir, CertificatesFile, []certify.Certificate{certified("isp", 0), certified("wall", 0)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// certified is a certificate of a box as it is from a step on.
func certified(box string, step int) certify.Certificate {
	return certify.Certificate{Box: box, Boxes: []string{box}, Step: step}
}

// A canary goes through each box in turn, and where one blocks UDP it must be
// stopped, seen to be, and logged.
func TestCanary(t *testing.T) {
	blocked := func(r *evidencetest.Recording) { r.Block["wall"] = evidence.UDP }
	for _, test := range []struct {
		name, wall string
		do         func(*evidencetest.Recording)
		want       []string // verdict and observation of each box
	}{
		{"let through", "port-restricted", func(*evidencetest.Recording) {}, []string{"pass: 3 of 3 went out", "pass: 3 of 3 went out"}},
		{"stopped", "udp-blocked", blocked, []string{"pass: dropped by block-udp"}},
		{"stopped by a box that doesn't allow it", "web-only", blocked, []string{"pass: dropped by block-udp"}},
		{"stopped by a box that shouldn't", "port-restricted", blocked, []string{"fail: dropped by block-udp"}},
		{"let through by a box that should stop it", "udp-blocked", func(*evidencetest.Recording) {}, []string{"fail: 3 of 3 went out"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			judged, err := Scenario(recorded(t, test.wall, test.do), "x", "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range judged.Controls {
				if c.Control == report.Canary {
					got = append(got, c.Verdict+": "+c.Observed)
				}
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A canary that nobody saw come to a box is a control that failed, unless it was
// lost for a reason that the run knows.
func TestCanaryUnseen(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(*evidencetest.Recording)
		with func(*Recording)
		want string // of the control of the wall
	}{
		{"the box's tap is blind", func(r *evidencetest.Recording) { r.Blind["wall/lan"] = true }, nil, "fail: no canary was seen to come to the box"},
		{"it never left its host", nil, func(r *Recording) { r.Driven.Canaries[0].Sizes = []int{301, 302, 303} }, "fail: no canary was seen to come to the box"},
		{"none was sent", nil, func(r *Recording) { r.Driven.Canaries = nil }, "fail: no canary was sent through the box"},
		{
			"the driving ended before", nil, func(r *Recording) { r.Driven.Canaries, r.Driven.Broken = nil, "a node died" },
			"inconclusive: the driving ended early: a node died",
		},
		{
			"its link loses packets", func(r *evidencetest.Recording) { r.Blind["wall/lan"] = true },
			func(r *Recording) {
				r.Scenario = parse(t, strings.Replace(canaryScenario, "behind: wall}", "behind: wall, link: {up: {loss: 50%}}}", 1))
			},
			"inconclusive: no canary came to the box, and a link on its way loses packets or is slow",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := recorded(t, "port-restricted", func(r *evidencetest.Recording) {
				if test.do != nil {
					test.do(r)
				}
			})
			r, err := Read(dir, "x")
			if err != nil {
				t.Fatal(err)
			}
			if test.with != nil {
				test.with(r)
			}
			controls := r.controls(r.Judge(""))
			var got string
			for _, c := range controls {
				if c.Control == report.Canary && c.Subject == "wall" {
					got += c.Verdict + ": " + c.Reason
				}
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if failed := strings.HasPrefix(test.want, verdict.Fail); (report.Doubt(controls) != "") != failed {
				t.Errorf("doubt %q", report.Doubt(controls))
			}
		})
	}
}

// parse reads a scenario whose wall is port-restricted.
func parse(t *testing.T, source string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("x.yaml", []byte(strings.Replace(source, "WALL", "port-restricted", 1)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A step that changed a box without a canary sent through it since is a control
// that failed.
func TestNoCanaryAfterChange(t *testing.T) {
	r, err := Read(recorded(t, "port-restricted", func(*evidencetest.Recording) {}), "x")
	if err != nil {
		t.Fatal(err)
	}
	checks := r.Judge("")
	r.Scenario = parse(t, strings.Replace(canaryScenario, "steps:\n", "steps:\n  - change: {box: wall, preset: full-cone}\n", 1))
	var got []string
	for _, c := range r.controls(checks) {
		if c.Verdict != verdict.Pass {
			got = append(got, c.String()+": "+c.Reason)
		}
	}
	if len(got) != 1 || !strings.HasSuffix(got[0], ", changed in step 1: no canary was sent through the box") {
		t.Errorf("%q", got)
	}
}

// A canary that was sent after a step is of the box that the step changed, and
// is held against what that is now.
func TestCanaryAfterChange(t *testing.T) {
	change := func(to string) string {
		return strings.Replace(canaryScenario, "steps:\n", "steps:\n  - change: {box: wall, preset: "+to+"}\n", 1)
	}
	blocked := func(r *evidencetest.Recording) { r.Block["wall"] = evidence.UDP }
	open := func(*evidencetest.Recording) {}
	for _, test := range []struct {
		name, from, to string
		do             func(*evidencetest.Recording)
		failed         string // a difference in the certificate of the change
		want           string
	}{
		{"stopped", "port-restricted", "udp-blocked", blocked, "", "pass: dropped by block-udp"},
		{"let through", "udp-blocked", "full-cone", open, "", "pass: 3 of 3 went out"},
		{"still blocked", "udp-blocked", "full-cone", blocked, "", "fail: dropped by block-udp"},
		{"not blocked yet", "port-restricted", "udp-blocked", open, "", "fail: 3 of 3 went out"},
		{"not what it should become", "port-restricted", "udp-blocked", open, "block", "inconclusive: 3 of 3 went out"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := recorded(t, test.from, test.do)
			source := strings.Replace(change(test.to), "WALL", test.from, 1)
			if err := os.WriteFile(filepath.Join(dir, ScenarioFile), []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			r, err := Read(dir, "x")
			if err != nil {
				t.Fatal(err)
			}
			if test.failed != "" {
				r.Certificates = []certify.Certificate{{Box: "wall", Boxes: []string{"wall"}, Step: 1, Differences: []string{test.failed}}}
			}
			after := r.Driven.Canaries[0]
			after.Step, after.Changed = 1, "wall"
			r.Driven.Canaries = append(r.Driven.Canaries, after)
			var got []report.Control
			for _, c := range r.controls(r.Judge("")) {
				if c.Control == report.Canary && c.Step != 0 {
					got = append(got, c)
				}
			}
			if len(got) != 1 || got[0].Subject != "wall" || got[0].Step != 1 || got[0].Verdict+": "+got[0].Observed != test.want {
				t.Errorf("%+v, want %s", got, test.want)
			}
		})
	}
}

// Bytes that a third host gets from the caller, or hands to the callee, are
// counted against what it may carry.
func TestSilent(t *testing.T) {
	dir := recorded(t, "port-restricted", func(*evidencetest.Recording) {})
	r, err := Read(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	checks := r.Judge("")
	if c := checks[0]; c.Verdict != verdict.Pass {
		t.Fatalf("%s: %s", c.Verdict, c.Reason)
	}
	for _, test := range []struct {
		bytes int
		to    string
		want  string
	}{
		{225, "198.18.1.8:7", verdict.Pass}, {226, "198.18.1.8:7", verdict.Fail},
		{901, "198.18.1.9:7", verdict.Pass}, // meant for bob, and flooded by a bridge
	} {
		w := newWatch(r, checks)
		r.Evidence.World.Hosts = append(r.Evidence.World.Hosts[:2:2], evidencetest.Host("relay", "198.18.1.8", ""))
		e := r.Evidence.Exchanges[0]
		w.packet(evidence.CapturedPacket{Tap: "relay/eth0", Time: e.From}, evidence.Packet{
			Transport: evidence.UDP, Payload: test.bytes,
			Tuple: evidence.Tuple{Src: netip.MustParseAddrPort("198.18.1.1:4001"), Dst: netip.MustParseAddrPort(test.to)},
		})
		if k := w.silent(checks[0], e); k.Verdict != test.want {
			t.Errorf("%d bytes of 901 to %s: %+v", test.bytes, test.to, k)
		}
	}
}

func TestCutControl(t *testing.T) {
	check := func(v, p string) report.Check {
		return report.Check{Verdict: v, Reason: "because", Observed: &path.Record{Path: p}}
	}
	for _, test := range []struct {
		whole, cut report.Check
		want       string
	}{
		{check(verdict.Pass, path.Direct), check(verdict.Fail, path.Failed), verdict.Pass},
		{check(verdict.Pass, path.Direct), check(verdict.Pass, path.Direct), verdict.Fail},
		{check(verdict.Pass, path.Direct), check(verdict.Fail, path.Relayed), verdict.Fail},
		{check(verdict.Pass, path.Direct), check(verdict.Inconclusive, path.Failed), verdict.Fail},
		{check(verdict.Inconclusive, path.Direct), check(verdict.Fail, path.Failed), verdict.Fail},
		{check(verdict.Pass, path.Direct), report.Check{Verdict: verdict.Fail}, verdict.Fail},
	} {
		if got := CutControl([]report.Check{test.whole, test.cut}); got.Verdict != test.want || (got.Reason == "") != (test.want == verdict.Pass) {
			t.Errorf("%+v", got)
		}
	}
	if CutControl(nil).Verdict != verdict.Fail {
		t.Error("nothing was judged, and the control holds")
	}
}

// A name that leads out of the folder is no scenario's.
func TestRunFile(t *testing.T) {
	for _, id := range []string{"", "..", "../other", "a/b", ControlFolder, "/etc"} {
		dir := t.TempDir()
		if err := WriteRun(dir, Run{Repeat: 1, Scenarios: []string{id}}); err != nil {
			t.Fatal(err)
		}
		if _, err := Report(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("run.json: scenario %q: ", id)) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
