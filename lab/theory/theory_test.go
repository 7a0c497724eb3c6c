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

func checks(t *testing.T, s *scenario.Scenario) [][]theory.Answer {
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
	all, err := tests.Suite("seed")
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
				if f.Function == nil {
					if f.Silent == "" {
						t.Errorf("%s, step %d: no theory, and no word why", s.ID, i+1)
					}
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

func media(t *testing.T, node, steps string) theory.Answer {
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
		if f.Function == nil || f.String() != c.want {
			t.Errorf("%s: %v, want %s", c.name, f.Function, c.want)
		}
		if told := f.Function != nil && strings.Contains(strings.Join(f.Reasoning, "\n"), "bindings expire"); told != (c.name == "expired") {
			t.Errorf("%s: tells of expired bindings: %v", c.name, told)
		}
	}
	for _, foreign := range []string{"exec: [./node]", "image: somebodys"} {
		if f := media(t, foreign, ""); f.Function != nil || f.Silent != "the node of alice is not the reference overlay's" {
			t.Errorf("of a foreign node, %s, theory says %v, %q", foreign, f.Function, f.Silent)
		}
	}
	bad := strings.NewReplacer("NODE", "role: client", "STEPS\n", "", "alice: {behind: a}", "alice: {behind: a, link: {up: {rate: 16kbit}}}").Replace(base)
	if all := checks(t, parse(t, bad)); all[0][1].Function != nil || !strings.Contains(all[0][1].Silent, "a link of alice") {
		t.Errorf("over a link of 16 kbit/s, theory says %v, %q", all[0][1].Function, all[0][1].Silent)
	}
	old := "profile: baset2004\n" + strings.NewReplacer("NODE", "role: client", "STEPS\n", "").Replace(base)
	if all := checks(t, parse(t, old)); all[0][1].Function != nil || !strings.Contains(all[0][1].Silent, "profile nec2006") {
		t.Errorf("of a profile that punches no holes, theory says %v, %q", all[0][1].Function, all[0][1].Silent)
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
		theory.Compare(&check, theory.Answer{Function: f})
		if check.Verdict != c.want || check.Theory != f {
			t.Errorf("%s, %s: %s, want %s", c.verdict, c.seen, check.Verdict, c.want)
		}
		if c.verdict != c.want && !strings.HasPrefix(check.Reason, "theory allows punched over udp, the wire shows "+c.seen) ||
			c.verdict != c.want && !strings.HasSuffix(check.Reason, "theory: neither end is free") {
			t.Errorf("reason: %s", check.Reason)
		}
	}
	check := report.Check{Verdict: verdict.Pass, Observed: &path.Record{Path: path.Failed}}
	theory.Compare(&check, theory.Answer{Silent: "nobody knows"})
	if check.Verdict != verdict.Pass || check.NoTheory != "nobody knows" {
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

const troubled = `topology:
  middleboxes: {home-a: {preset: port-restricted, deny: ["bob:udp"]}, office: {preset: stateful-firewall}}
  hosts: {login: {}, alice: {behind: home-a}, bob: {behind: office}, sn1: {}, sn2: {}}
nodes: {login: {role: login}, sn1: {role: supernode SETTINGS}, sn2: {role: supernode SETTINGS}, alice: {role: client}, bob: {role: client}}
steps:
  - BEFORE
  - call: {caller: alice, callee: bob, during: {at: 1s, EVENT}}
    expect: {signalling: {path: any}, media: {path: any}, after: {path: any}}
`

// Theory answers for what comes after an event by what that made of the boxes. It
// says nothing where a node that a function needs was done something to, and
// where no supernode relays; the overlay has other supernodes than one.
func TestTrouble(t *testing.T) {
	for _, c := range []struct{ settings, before, event, media, after string }{
		{"", "reboot: {box: office}", "change: {box: home-a, preset: port-restricted}", path.Relayed, path.Punched},
		{"", "kill: {node: sn2}", "kill: {node: carrying}", path.Relayed, path.Relayed},
		{"", "stall: {node: login}", "resume: {node: login}", "", path.Relayed},
		{"", "lose: {node: bob, loss: 10%}", "lose: {node: bob, loss: 0%}", "", path.Relayed},
		{", settings: {relay_sessions: 0}", "reboot: {box: office}", "change: {box: home-a, preset: port-restricted}", "", ""},
		{", settings: {relay_sessions: 1}", "reboot: {box: office}", "stall: {node: sn1}", path.Relayed, path.Relayed},
	} {
		text := strings.NewReplacer("SETTINGS", c.settings, "BEFORE", c.before, "EVENT", c.event, "role: supernode ,", "role: supernode,").Replace(troubled)
		call := checks(t, parse(t, text))[1]
		if len(call) != 3 {
			t.Fatalf("%d checks of a call", len(call))
		}
		for n, want := range []string{c.media, c.after} {
			got := ""
			if f := call[1+n].Function; f != nil {
				got = f.Allowed[0].Path
			}
			if got != want {
				t.Errorf("%s, then %s: part %d %q, want %q", c.before, c.event, n+1, got, want)
			}
		}
	}
}

// Whoever can't log in neither calls nor is called, whatever boxes would let
// through, until a later login gets through.
func TestNotLoggedIn(t *testing.T) {
	s := parse(t, `topology:
  middleboxes: {corp: {preset: port-restricted, deny: [sn1, sn2]}}
  hosts: {login: {}, alice: {behind: corp}, bob: {}, sn1: {}, sn2: {}}
nodes: {login: {role: login}, alice: {role: client}, bob: {role: client}, sn1: {role: supernode}, sn2: {role: supernode}}
steps:
  - login: [alice, bob]
    expect: {path: any}
  - call: {caller: bob, callee: alice}
    expect: {signalling: {path: any}, media: {path: any}}
  - search: {caller: alice, callee: bob}
    expect: {path: any}
  - change: {box: corp, preset: port-restricted}
  - search: {caller: alice, callee: bob}
    expect: {path: any}
  - login: [alice]
    expect: {path: any}
  - call: {caller: bob, callee: alice}
    expect: {signalling: {path: any}, media: {path: any}}
`)
	var got []string
	for _, step := range checks(t, s) {
		for _, a := range step {
			got = append(got, a.String())
		}
	}
	want := "failed, direct over tcp, failed, failed, failed, failed, direct over tcp, reversed over tcp, reversed over udp"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}
