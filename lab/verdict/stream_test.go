package verdict_test

import (
	"strings"
	"testing"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

// What is asked of a load holds or is named with what the wire shows.
func TestStream(t *testing.T) {
	half := verdict.Duration(500 * time.Millisecond)
	over := func(relay string) path.Record {
		return path.Record{Path: path.Relayed, Legs: []path.Leg{{From: "alice", To: relay}, {From: relay, To: "bob"}}}
	}
	good := media.Direction{Sent: 280, Received: 280, Rate: 70.2, Least: 69.5, Gap: 0.03}
	for _, c := range []struct {
		name   string
		asked  verdict.Stream
		change func(*media.Measure)
		want   string // "" for a pass
	}{
		{"all of it", verdict.Stream{Gap: &half, Lost: count(t, "0"), Size: new(67), Rate: new(70), First: "relayed", Moved: new(true)}, nil, ""},
		{"gap", verdict.Stream{Gap: &half}, func(m *media.Measure) { m.Gap, m.ToCaller.Gap = 0.501, 0.501 },
			"expected a gap of 500ms at most, the wire shows 30 ms towards the callee and 501 ms towards the caller"},
		{"lost", verdict.Stream{Lost: count(t, "<=1")}, func(m *media.Measure) { m.ToCaller.Received = 278 }, "expected lost <=1, the wire shows 280 packets sent to the caller and 278 received"},
		{"more than was sent", verdict.Stream{Lost: count(t, "0")}, func(m *media.Measure) { m.ToCallee.Received = 281 }, "280 packets sent to the callee and 281 received"},
		{"size", verdict.Stream{Size: new(67)}, func(m *media.Measure) { m.Size = 69 }, "expected media packets of 67 bytes, the wire shows 69"},
		{"rate", verdict.Stream{Rate: new(70)}, func(m *media.Measure) { m.ToCallee.Rate = 71.5 }, "expected 70 packets a second within 2 %, the wire shows 71.5 to the callee"},
		{"rate of one half", verdict.Stream{Rate: new(70)}, func(m *media.Measure) { m.ToCaller.Least = 68.5 }, "and 68.5 in one half"},
		{"first", verdict.Stream{First: "straight"}, nil, "expected the first packet to be straight, it came from sn1"},
		{"first straight", verdict.Stream{First: "relayed"}, func(m *media.Measure) { m.First = "" }, "it came from the caller"},
		{"not moved", verdict.Stream{Moved: new(false)}, nil, `to be the same as before, the wire shows ["sn2"], and ["sn1"] before`},
	} {
		m := &media.Measure{Size: 67, First: "sn1", Gap: 0.03, ToCallee: good, ToCaller: good}
		if c.change != nil {
			c.change(m)
		}
		given := check(t, scene(t))
		before := over("sn1")
		given.Expected = verdict.Expectation{Path: path.Relayed, Stream: c.asked}
		given.Media, given.Before, given.Finding.Record, given.Claimed = m, &before, over("sn2"), nil
		if errs := given.Expected.Validate(); len(errs) > 0 {
			t.Errorf("%s: not valid: %v", c.name, errs)
		}
		got, reason := verdict.Judge(given)
		if c.want == "" && got != verdict.Pass || c.want != "" && (got != verdict.Fail || !strings.Contains(reason, c.want)) {
			t.Errorf("%s: %s: %s; want %q", c.name, got, reason, c.want)
		}
		given.Media = nil
		if got, reason := verdict.Judge(given); got != verdict.Fail || !strings.Contains(reason, "no media came") {
			t.Errorf("%s, without media: %s: %s", c.name, got, reason)
		}
	}
}

// A gap that may be the sender's own proves nothing, unless that of the other
// direction is too long without.
func TestPausedSender(t *testing.T) {
	half := verdict.Duration(500 * time.Millisecond)
	for _, c := range []struct {
		gap, pause, other float64
		verdict, want     string
	}{
		{0.6, 0.55, 0.03, verdict.Inconclusive, "of a gap of 600 ms, 550 ms may be the caller's own"},
		{0.6, 0.02, 0.03, verdict.Fail, "expected a gap of 500ms at most"},
		{0.6, 0.55, 0.7, verdict.Fail, "expected a gap of 500ms at most"},
		{0.4, 0.39, 0.03, verdict.Pass, ""},
	} {
		m := &media.Measure{Gap: max(c.gap, c.other), ToCallee: media.Direction{Gap: c.gap, Pause: c.pause}, ToCaller: media.Direction{Gap: c.other, Pause: 0.02}}
		given := check(t, scene(t))
		given.Expected.Stream, given.Media = verdict.Stream{Gap: &half}, m
		if got, reason := verdict.Judge(given); got != c.verdict || !strings.Contains(reason, c.want) {
			t.Errorf("gap %v, pause %v: %s: %s; want %s: %s", c.gap, c.pause, got, reason, c.verdict, c.want)
		}
	}
}

// A gap after something was done is too long whichever path media took then, even
// where that can't be told.
func TestGapBeforeDoubt(t *testing.T) {
	half := verdict.Duration(500 * time.Millisecond)
	for _, c := range []struct {
		gap, pause float64
		event      bool
		verdict    string
	}{
		{0.6, 0.02, true, verdict.Fail}, {0.6, 0.02, false, verdict.Inconclusive},
		{0.6, 0.55, true, verdict.Inconclusive}, {0.4, 0.02, true, verdict.Inconclusive},
	} {
		given := check(t, scene(t))
		given.Expected.Stream = verdict.Stream{Gap: &half}
		given.Media = &media.Measure{Gap: c.gap, ToCallee: media.Direction{Gap: c.gap, Pause: c.pause}}
		given.Finding.Inconclusive = "too much for a flow that does not carry"
		if c.event {
			given.Exchange.Events = []evidence.Event{{Action: "kill", Target: "sn1"}}
		}
		if got, reason := verdict.Judge(given); got != c.verdict {
			t.Errorf("gap %v, pause %v, event %v: %s: %s; want %s", c.gap, c.pause, c.event, got, reason, c.verdict)
		}
	}
}

func TestValidateStream(t *testing.T) {
	zero := verdict.Duration(0)
	for want, s := range map[string]verdict.Stream{
		"gap 0s": {Gap: &zero}, "size 0": {Size: new(0)}, "rate -1": {Rate: new(-1)}, `first "sideways"`: {First: "sideways"},
	} {
		if errs := (verdict.Expectation{Stream: s}).Validate(); len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%+v: %v, want one error about %q", s, errs, want)
		}
	}
}
