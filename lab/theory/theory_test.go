package theory_test

import (
	"strings"
	"testing"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/theory"
	"gauntlet/lab/verdict"
	"gauntlet/tests"
)

func parse(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checks(t *testing.T, s *scenario.Scenario) [][]*oracle.Function {
	t.Helper()
	all, err := theory.Checks(s)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What the seed suite expects is what theory says, of every login, search and
// call.
func TestSeedSuite(t *testing.T) {
	all, err := tests.Seed()
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, s := range all {
		for i, step := range checks(t, s) {
			st := &s.Steps[i]
			expected := []string{}
			switch {
			case st.Expect == nil:
			case st.Call != nil:
				expected = append(expected, st.Expect.Signalling.Path, st.Expect.Media.Path)
			default:
				for range step {
					expected = append(expected, st.Expect.Path)
				}
			}
			for n, f := range step {
				if f == nil {
					continue
				}
				said++
				if len(f.Allowed) == 0 || f.Allowed[0].Path != expected[n] {
					t.Errorf("%s, step %d: theory says %s, the suite %s\n%s", s.ID, i+1, f, expected[n], strings.Join(f.Reasoning, "\n"))
				}
			}
		}
	}
	if said < 20 {
		t.Errorf("theory says something of %d checks alone", said)
	}
}

const base = `topology:
  middleboxes: {a: {preset: port-restricted}, b: {preset: symmetric-sequential}}
  hosts: {login: {}, alice: {behind: a}, bob: {behind: b}}
nodes: {login: {role: login}, alice: {NODE}, bob: {NODE}}
steps:
STEPS
  - call: {caller: alice, callee: bob}
    expect: {signalling: {path: any}, media: {path: any}}
`

func media(t *testing.T, node, steps string) *oracle.Function {
	t.Helper()
	all := checks(t, parse(t, strings.NewReplacer("NODE", node, "STEPS", steps).Replace(base)))
	return all[len(all)-1][1]
}

// Settings, changes of a box and expiry are part of the question; foreign nodes
// and bad links leave theory without an answer.
func TestQuestion(t *testing.T) {
	for _, c := range []struct {
		name, node, steps, want string
	}{
		{"as it begins", "role: client", "", "relayed over udp"},
		{"predicting", "role: client, settings: {predict: true}", "", "punched over udp"},
		{"after a change", "role: client", "  - change: {box: b, preset: full-cone}", "direct over udp"},
		{"a firewall preset keeps the translation", "role: client", "  - change: {box: b, preset: udp-blocked}", "relayed over udp and tcp"},
		{"expired", "role: client", "  - expire: {box: b}", "relayed over udp"},
	} {
		f := media(t, c.node, c.steps)
		if f == nil || f.String() != c.want {
			t.Errorf("%s: %v, want %s", c.name, f, c.want)
		}
		if told := f != nil && strings.Contains(strings.Join(f.Reasoning, "\n"), "bindings expire"); told != (c.name == "expired") {
			t.Errorf("%s: tells of expired bindings: %v", c.name, told)
		}
	}
	if f := media(t, "exec: [./node]", ""); f != nil {
		t.Errorf("of a foreign node, theory says %s", f)
	}
	bad := strings.NewReplacer("NODE", "role: client", "STEPS\n", "", "alice: {behind: a}", "alice: {behind: a, link: {up: {rate: 16kbit}}}").Replace(base)
	if all := checks(t, parse(t, bad)); all[0][1] != nil {
		t.Errorf("over a link of 16 kbit/s, theory says %s", all[0][1])
	}
	old := "profile: baset2004\n" + strings.NewReplacer("NODE", "role: client", "STEPS\n", "").Replace(base)
	if all := checks(t, parse(t, old)); all[0][1] != nil {
		t.Errorf("of a profile that punches no holes, theory says %s", all[0][1])
	}
}

// A path that theory doesn't allow fails, be it better or worse; one that did
// not pass anyway keeps its verdict.
func TestCompare(t *testing.T) {
	f := &oracle.Function{Allowed: []oracle.Route{{Path: path.Punched, Transports: []string{"udp"}}}, Reasoning: []string{"first", "neither end is free"}}
	for _, c := range []struct{ verdict, seen, want string }{
		{verdict.Pass, path.Punched, verdict.Pass},
		{verdict.Pass, path.Direct, verdict.Fail},
		{verdict.Pass, path.Relayed, verdict.Fail},
		{verdict.Inconclusive, path.Direct, verdict.Inconclusive},
		{verdict.NotOffered, path.Failed, verdict.NotOffered},
	} {
		check := report.Check{Verdict: c.verdict, Observed: &path.Record{Path: c.seen, Legs: []path.Leg{{Transport: "udp"}}}}
		theory.Compare(&check, f)
		if check.Verdict != c.want || check.Theory != f {
			t.Errorf("%s, %s: %s, want %s", c.verdict, c.seen, check.Verdict, c.want)
		}
		if c.verdict != c.want && !strings.HasPrefix(check.Reason, "theory allows punched over udp, the wire shows "+c.seen) ||
			c.verdict != c.want && !strings.HasSuffix(check.Reason, "theory: neither end is free") {
			t.Errorf("reason: %s", check.Reason)
		}
	}
	check := report.Check{Verdict: verdict.Pass, Observed: &path.Record{Path: path.Failed}}
	theory.Compare(&check, nil)
	if check.Verdict != verdict.Pass {
		t.Error("a check that theory says nothing of fails for it")
	}
}

// The theories go to the checks that they are of: a conference has one check and
// no theory, a change neither.
func TestAnnotate(t *testing.T) {
	s := parse(t, `topology:
  middleboxes: {a: {preset: port-restricted}}
  hosts: {login: {}, alice: {behind: a}, bob: {}}
nodes: {login: {role: login}, alice: {role: client}, bob: {role: client}}
steps:
  - login: [alice, bob]
    expect: {path: direct}
  - conference: {starter: alice, members: [bob]}
    expect: {path: direct}
  - change: {box: a, preset: udp-blocked}
  - call: {caller: alice, callee: bob}
    expect: {signalling: {path: direct}, media: {path: direct}}
`)
	checks := make([]report.Check, 5)
	for n := range checks {
		checks[n] = report.Check{Verdict: verdict.Pass, Observed: &path.Record{Path: path.Direct, Legs: []path.Leg{{Transport: "tcp"}}}}
	}
	checks[4].Observed.Legs[0].Transport = "udp"
	theory.Annotate(s, checks)
	for n, want := range []string{"direct over tcp", "direct over tcp", "", "direct over tcp", "direct over tcp"} {
		got := ""
		if checks[n].Theory != nil {
			got = checks[n].Theory.String()
		}
		if got != want {
			t.Errorf("check %d: theory %q, want %q", n, got, want)
		}
	}
	if checks[3].Verdict != verdict.Pass || checks[4].Verdict != verdict.Fail {
		t.Errorf("signalling over tcp %s, media over udp %s; want the second to fail", checks[3].Verdict, checks[4].Verdict)
	}
}
