package report

import (
	"bytes"
	"strings"
	"testing"

	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

func checks(verdicts ...string) []Check {
	var all []Check
	for _, v := range verdicts {
		all = append(all, Check{ID: "s/search", Scenario: "s", Verdict: v, Reason: "because"})
	}
	return all
}

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		verdicts []string
		want     int
	}{
		{[]string{verdict.Pass, verdict.Pass}, ExitPass},
		{[]string{verdict.Pass, verdict.NotOffered}, ExitPass},
		{[]string{verdict.Pass, verdict.Inconclusive}, ExitInconclusive},
		{[]string{verdict.Fail, verdict.Inconclusive, verdict.Pass}, ExitFail},
		{[]string{verdict.NotOffered}, ExitInconclusive},
		{nil, ExitInconclusive},
	} {
		if got := ExitStatus(checks(test.verdicts...)); got != test.want {
			t.Errorf("%v: %d, want %d", test.verdicts, got, test.want)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, test := range []struct {
		verdicts        []string
		verdict, reason string
	}{
		{[]string{verdict.Pass}, verdict.Pass, "because"},
		{[]string{verdict.Fail}, verdict.Fail, "because"},
		{[]string{verdict.Pass, verdict.Pass}, verdict.Pass, "because"},
		{[]string{verdict.Pass, verdict.Fail, verdict.Pass}, verdict.Fail, "flake: 2 of 3 passed; one that failed: because"},
		{[]string{verdict.Fail, verdict.Fail}, verdict.Fail, "because (0 of 2 passed)"},
		{[]string{verdict.Pass, verdict.Inconclusive, verdict.Pass}, verdict.Inconclusive, "because (2 of 2 passed, 1 inconclusive)"},
		{[]string{verdict.Inconclusive, verdict.Inconclusive}, verdict.Inconclusive, "because (2 inconclusive)"},
		{[]string{verdict.NotOffered, verdict.Inconclusive}, verdict.Inconclusive, "because (1 inconclusive, 1 not offered)"},
		{[]string{verdict.Pass, verdict.NotOffered}, verdict.Fail, "flake: 1 of 1 passed, 1 not offered"},
		{[]string{verdict.Inconclusive, verdict.Fail}, verdict.Fail, "because (0 of 1 passed, 1 inconclusive)"},
		{[]string{verdict.Inconclusive, verdict.Fail, verdict.Pass}, verdict.Fail, "flake: 1 of 2 passed, 1 inconclusive; one that failed: because"},
		{[]string{verdict.NotOffered, verdict.NotOffered}, verdict.NotOffered, "because"},
	} {
		got := Merge(checks(test.verdicts...))
		if got.Verdict != test.verdict || got.Reason != test.reason {
			t.Errorf("%v: %s, %q; want %s, %q", test.verdicts, got.Verdict, got.Reason, test.verdict, test.reason)
		}
	}
}

func TestTableOfOne(t *testing.T) {
	var b bytes.Buffer
	Results{Checks: checks(verdict.Pass)}.WriteTable(&b, false)
	if want := "\n1 check in 0.0 s: "; !strings.Contains(b.String(), want) {
		t.Errorf("the table lacks %q:\n%s", want, b.String())
	}
}

func TestTable(t *testing.T) {
	r := Results{Checks: checks(verdict.Pass, verdict.Fail, verdict.Inconclusive, verdict.NotOffered)}
	r.Checks[0].Observed = &path.Record{Path: path.Relayed, Hops: 1, Relays: 4, Carrying: 1, Legs: []path.Leg{
		{From: "a", To: "sn1", Transport: "udp"}, {From: "sn1", To: "b", Transport: "udp"}}}
	r.Checks[1].Notes = []string{"what was seen"}
	var b bytes.Buffer
	r.WriteTable(&b, false)
	for _, want := range []string{
		"relayed, 1 hop, udp, 1 of 4 relays",
		"s/search: FAIL: because\n    what was seen\n",
		"s/search: inconclusive: because\n",
		"4 checks in 0.0 s: 1 pass, 1 fail, 1 inconclusive, 1 not offered\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	r := Results{Checks: checks(verdict.Pass, verdict.Fail, verdict.Inconclusive, verdict.NotOffered)}
	if err := r.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	if want := `tests="4" failures="1" errors="1"`; !strings.Contains(b.String(), want) || !strings.Contains(b.String(), `skipped="1"`) {
		t.Errorf("%s", b.String())
	}
}

// Whatever theory says nothing of is counted by the reason, so that nobody takes
// a scenario's word for more.
func TestTableOfSilence(t *testing.T) {
	r := Results{Checks: []Check{
		{ID: "a", Verdict: verdict.Pass, NoTheory: "the node of alice is strange"},
		{ID: "b", Verdict: verdict.Fail, NoTheory: "the node of alice is strange"},
		{ID: "c", Verdict: verdict.NotOffered, NoTheory: "there is none of presence"},
		{ID: "d", Verdict: verdict.Pass},
	}}
	var b strings.Builder
	r.WriteTable(&b, false)
	if want := "no theory of 2 checks, held against the scenario alone: the node of alice is strange\n"; strings.Count(b.String(), "no theory") != 1 || !strings.Contains(b.String(), want) {
		t.Errorf("%s\nwant the line %q", b.String(), want)
	}
}
