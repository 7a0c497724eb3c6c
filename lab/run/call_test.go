package run

import (
	"testing"

	"gauntlet/lab/capture"
	"gauntlet/lab/internet"
	"gauntlet/lab/judge"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"
	"gauntlet/topo/ns/nstest"
)

// A call before which the connection tables can't be read isn't driven, and takes no
// other function's window for its own.
func TestCallThatIsNotRecorded(t *testing.T) {
	nstest.New(t) // whoever may not make one skips this
	s, err := scenario.Parse("x.yaml", []byte(`topology: {middleboxes: {wall: {preset: open}}, hosts: {alice: {behind: wall}, bob: {}}}
nodes: {alice: {role: client}, bob: {role: client}}
steps:
  - call: {caller: alice, callee: bob}
    expect: {signalling: {path: direct}, media: {path: direct}}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := &single{Scenario: s, random: newRandom(1, s.ID, 0)}
	r.plan()
	r.nodes = &nodes{run: r, prepared: map[string]control.PrepareResult{
		"alice": {Functions: []string{control.MethodCall}}, "bob": {Functions: []string{control.MethodCall}},
	}}
	if r.internet, err = internet.Up(t.Context(), s.Topology); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.internet.Close() })
	if r.recorder, err = capture.Start(t.Context(), r.captureConfig(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	if _, err := r.recorder.Close(); err != nil { // from here on nothing can be read
		t.Fatal(err)
	}
	if err := r.step(t.Context(), 0); err == nil {
		t.Error("a call without a recording")
	}
	for _, d := range r.planned[0] {
		if d.record.Exchange != judge.NotDriven {
			t.Errorf("%s has exchange %d of %d", d.record.ID, d.record.Exchange, len(r.exchanges))
		}
	}
}
