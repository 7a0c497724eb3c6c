package judge

import (
	"os"
	"path/filepath"
	"testing"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/verdict"
)

// A box without a certificate is as little to be relied on as one that failed, be it
// of what it is as the scenario begins or of what a step before the check made of it.
func TestUnmeasured(t *testing.T) {
	const changed = `topology:
  middleboxes: {isp: {preset: port-restricted}, wall: {preset: full-cone, behind: isp}}
  hosts: {alice: {behind: wall}, bob: {}}
nodes: {alice: {role: client}, bob: {role: client}}
steps:
  - change: {box: wall, preset: port-restricted}
  - search: {caller: alice, callee: bob}
    expect: {path: direct}
  - change: {box: wall, preset: symmetric}
`
	dir := recorded(t, "full-cone", func(*evidencetest.Recording) {})
	if err := os.WriteFile(filepath.Join(dir, ScenarioFile), []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	isp, wall, becomes := certified("isp", 0), certified("wall", 0), certified("wall", 1)
	for _, test := range []struct {
		name string
		have []certify.Certificate
		want string // the reason; "" for a pass
	}{
		{"all", []certify.Certificate{isp, wall, becomes}, ""},
		{"an outer box", []certify.Certificate{wall, becomes}, "isp has no certificate"},
		{"before the change", []certify.Certificate{isp, becomes}, "wall has no certificate"},
		{"after the change", []certify.Certificate{isp, wall}, "wall, changed in step 1, has no certificate"},
		{"of another step", []certify.Certificate{isp, wall, certified("wall", 3)}, "wall, changed in step 1, has no certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Read(dir, "x")
			if err != nil {
				t.Fatal(err)
			}
			r.Certificates = test.have
			c := r.Judge("")[0]
			if test.want == "" && c.Verdict != verdict.Pass || test.want != "" && (c.Verdict != verdict.Inconclusive || c.Reason != test.want) {
				t.Errorf("%s: %s; want %q", c.Verdict, c.Reason, test.want)
			}
		})
	}
}
