package report

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

// Values of the score interval, computed from the formula's roots by hand and
// the same as in tables of it.
func TestWilson(t *testing.T) {
	for _, test := range []struct {
		passes, runs int
		low, high    float64
	}{
		{0, 0, 0, 1}, {0, 10, 0, 0.2775}, {8, 10, 0.4902, 0.9433}, {5, 10, 0.2366, 0.7634},
		{3, 3, 0.4385, 1}, {50, 50, 0.9287, 1}, {49, 50, 0.8950, 0.9965},
	} {
		low, high := Wilson(test.passes, test.runs)
		if math.Abs(low-test.low) > 0.0001 || math.Abs(high-test.high) > 0.0001 {
			t.Errorf("%d of %d: %.4f to %.4f, want %.4f to %.4f", test.passes, test.runs, low, high, test.low, test.high)
		}
	}
}

func TestSpread(t *testing.T) {
	if spread(nil) != nil {
		t.Error("a spread of nothing")
	}
	var hundred []float64
	for n := range 100 {
		hundred = append(hundred, float64(100-n))
	}
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}}, {[]float64{2, 1}, Spread{1, 2, 2}}, {[]float64{3, 1, 2}, Spread{2, 3, 3}}, {hundred, Spread{50, 95, 100}},
	} {
		if diff := cmp.Diff(&test.want, spread(test.values)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRates(t *testing.T) {
	some := checks(verdict.Pass, verdict.Fail, verdict.Pass)
	some[0].Times = &path.Times{First: 0.05, Best: 0.2}
	some[2].Times = &path.Times{First: 0.07, Best: 0.07}
	merged := Merge(some)
	want := &Rates{Runs: 3, Passes: 2, FirstPath: &Spread{0.05, 0.07, 0.07}, BestPath: &Spread{0.07, 0.2, 0.2}}
	want.Interval[0], want.Interval[1] = Wilson(2, 3)
	if diff := cmp.Diff(want, merged.Rates); diff != "" {
		t.Error(diff)
	}
	if got := merged.Rates.String(); got != "2/3 (0.21-0.94) 50/70 ms" {
		t.Errorf("in the table: %s", got)
	}
	r := Results{Run: Run{Repeat: 3}, Checks: []Check{merged}}
	var table, junit bytes.Buffer
	r.WriteTable(&table, false)
	if err := r.WriteJUnit(&junit); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), merged.Rates.String()) {
		t.Errorf("the table lacks the rate:\n%s", &table)
	}
	for _, property := range []string{`name="s/search.passes" value="2"`, `name="s/search.best_path_seconds.p95" value="0.200000"`} {
		if !strings.Contains(junit.String(), property) {
			t.Errorf("no %s in:\n%s", property, &junit)
		}
	}
	unseen := Merge(checks(verdict.Pass, verdict.Inconclusive, verdict.Pass)).Rates
	want = &Rates{Runs: 2, Passes: 2, Inconclusive: 1}
	want.Interval[0], want.Interval[1] = Wilson(2, 2)
	if diff := cmp.Diff(want, unseen); diff != "" || unseen.String() != "2/2 (0.34-1.00), 1 inconclusive" {
		t.Errorf("one that was not seen: %s\n%s", unseen, diff)
	}
	if never := Merge(checks(verdict.NotOffered, verdict.NotOffered)); never.Rates != nil {
		t.Errorf("rates of what is not offered: %+v", never.Rates)
	}
}

// One control that fails takes every pass away, and nothing else.
func TestControls(t *testing.T) {
	good := Control{Control: Canary, Scenario: "s", Subject: "home", Verdict: verdict.Pass}
	unsure, bad := good, good
	unsure.Verdict, unsure.Reason = verdict.Inconclusive, "not certified"
	bad.Control, bad.Subject, bad.Verdict, bad.Reason, bad.Expected = Cut, "a path", verdict.Fail, "still direct", "failed"
	if doubt := Doubt([]Control{good, unsure}); doubt != "" {
		t.Errorf("doubt without a control that failed: %s", doubt)
	}
	doubt := Doubt([]Control{good, bad, bad})
	if doubt != "a negative control failed: cut of a path in s: still direct; and 1 more" {
		t.Errorf("doubt: %s", doubt)
	}
	for _, c := range checks(verdict.Pass, verdict.Fail, verdict.Inconclusive, verdict.NotOffered) {
		want, reason := c.Verdict, c.Reason
		if want == verdict.Pass {
			want, reason = verdict.Inconclusive, doubt
		}
		if got := c.Doubted(doubt); got.Verdict != want || got.Reason != reason {
			t.Errorf("%s becomes %s: %s", c.Verdict, got.Verdict, got.Reason)
		}
		if got := c.Doubted(""); got.Verdict != c.Verdict {
			t.Errorf("%s becomes %s without a doubt", c.Verdict, got.Verdict)
		}
	}
	r := Results{Checks: checks(verdict.Pass), Controls: []Control{good, unsure, bad}}
	var table, junit bytes.Buffer
	r.WriteTable(&table, false)
	for _, want := range []string{
		"negative controls that held: canary 1 of 2, cut 0 of 1\n",
		"canary of home in s: inconclusive: expected ; not certified\n",
		"cut of a path in s: FAIL: expected failed; still direct\n",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &table)
		}
	}
	if err := r.WriteJUnit(&junit); err != nil || !strings.Contains(junit.String(), `<testsuite name="negative controls" tests="3" failures="1" errors="1"`) {
		t.Errorf("%v\n%s", err, &junit)
	}
}

func TestDrops(t *testing.T) {
	one := path.Drop{
		Offset: 0.25, From: "alice", To: "bob", Transport: "udp", Source: "198.18.1.1:4001", Destination: "198.18.1.2:4002",
		Router: "home-b", Rule: "unsolicited", LetIn: "had bob sent first",
	}
	again, other := one, one
	again.Offset, other.Offset, other.To, other.LetIn = 0.5, 0.3, "", "nothing"
	r := Results{Checks: checks(verdict.Pass, verdict.Pass)}
	r.Checks[1].Drops, r.Checks[1].MoreDrops = []path.Drop{one, other, again}, 4
	var text, junit bytes.Buffer
	r.WriteDrops(&text)
	const want = `s/search: 7 packets dropped on the way
    2 from +0.2500 s to +0.5000 s: udp alice (198.18.1.1:4001) -> bob (198.18.1.2:4002) at home-b by unsolicited: had bob sent first
    +0.3000 s: udp alice (198.18.1.1:4001) -> ? (198.18.1.2:4002) at home-b by unsolicited: nothing
    and 4 packets more
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
	if err := r.WriteJUnit(&junit); err != nil || !strings.Contains(junit.String(), "had bob sent first") {
		t.Errorf("%v\n%s", err, &junit)
	}
}
