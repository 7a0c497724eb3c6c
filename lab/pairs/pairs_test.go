package pairs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

func newTable(t *testing.T, o Options) *Table {
	t.Helper()
	made, err := Presets(o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// What is written and what theory reasons out agree on all 49 cells, in all
// variants.
func TestWrittenIsTheory(t *testing.T) {
	for _, o := range []Options{{}, {Expired: true}, {Predict: true}, {Labs: 3}} {
		made := newTable(t, o)
		if len(made.Cells) != 49 {
			t.Errorf("%+v: %d cells", o, len(made.Cells))
		}
		for _, c := range made.Cells {
			if diff := cmp.Diff([]oracle.Route{*c.Expected}, c.Theory.Media.Allowed); diff != "" {
				t.Errorf("%+v: %s (-written +theory):\n%s", o, c.Name(), diff)
			}
		}
	}
}

// Callers and callees are different hosts behind different boxes, every pair
// meets once, and no caller is in two labs.
func TestDisjoint(t *testing.T) {
	made := newTable(t, Options{Labs: 4, Expired: true})
	if len(made.Scenarios) != 4 {
		t.Fatalf("%d labs, want 4", len(made.Scenarios))
	}
	met, lab := map[[2]string]bool{}, map[string]string{}
	for _, s := range made.Scenarios {
		var expired []string
		for i := range s.Steps {
			st := &s.Steps[i]
			if st.Expire != nil {
				expired = append(expired, st.Expire.Box)
			}
			if st.Call == nil {
				continue
			}
			pair := [2]string{st.Call.Caller, st.Call.Callee}
			if met[pair] || !strings.HasPrefix(pair[0], "caller-") || !strings.HasPrefix(pair[1], "callee-") {
				t.Errorf("%v meet again, or one is both", pair)
			}
			met[pair] = true
			if lab[pair[0]] == "" {
				lab[pair[0]] = s.ID
			}
			if lab[pair[0]] != s.ID {
				t.Errorf("%s is in %s and in %s", pair[0], lab[pair[0]], s.ID)
			}
			if diff := cmp.Diff([]string{"box-" + pair[0], "box-" + pair[1]}, expired); diff != "" {
				t.Errorf("before the call of %v, what expired:\n%s", pair, diff)
			}
			expired = nil
		}
	}
	if len(met) != 49 {
		t.Errorf("%d pairs meet", len(met))
	}
}

// The text of a lab's expectations is that of its cells.
func TestExpectations(t *testing.T) {
	made := newTable(t, Options{Presets: []string{"confirming-router"}, Predict: true})
	if len(made.Cells) != 64 {
		t.Fatalf("%d cells", len(made.Cells))
	}
	expected := map[string]verdict.Expectation{}
	for i := range made.Scenarios[0].Steps {
		if st := &made.Scenarios[0].Steps[i]; st.Call != nil {
			expected[st.Name] = *st.Expect.Media
		}
	}
	one := 1
	for name, want := range map[string]verdict.Expectation{
		"U-O":                 {Path: path.Direct, Transport: "tcp"},
		"P-Sp":                {Path: path.Punched, Transport: "udp"},
		"U-P":                 {Path: path.Relayed, Hops: &one},
		"S-S":                 {Path: path.Relayed, Hops: &one, Transport: "udp"},
		"P-confirming-router": {Path: verdict.AnyPath},
		"O-confirming-router": {Path: path.Reversed, Transport: "udp"},
	} {
		if diff := cmp.Diff(want, expected[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, e := range made.Scenarios[0].Nodes {
		if predicts := strings.Contains(string(e.Value.Settings), "predict"); predicts != (e.Value.Role == "client") {
			t.Errorf("%s: settings %s", e.Name, e.Value.Settings)
		}
	}
}

func TestUnknownPreset(t *testing.T) {
	for _, err := range []error{
		func() error { _, err := Presets(Options{Presets: []string{"magic"}}); return err }(),
		func() error { _, err := Explain("P", "magic", Options{}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), `unknown preset "magic"; expected open`) {
			t.Errorf("%v", err)
		}
	}
}

const town = `topology:
  middleboxes:
    isp: {preset: cgnat}
    home: {preset: port-restricted, behind: isp}
    flat: {preset: port-restricted, behind: isp}
  hosts:
    alice: {behind: home}
    anna: {behind: home}
    bob: {behind: flat}
    sn1: {ip: 198.18.0.9}
    shop: {}
`

// A topology's hosts behind boxes are the axes, each calls each other in one of
// two labs, and never back in the same one.
func TestTopology(t *testing.T) {
	s, err := scenario.Parse("town.yaml", []byte(town))
	if err != nil {
		t.Fatal(err)
	}
	made, err := Topology(s, Options{Expired: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"alice", "anna", "bob"}, made.Callers); diff != "" || len(made.Cells) != 6 || len(made.Scenarios) != 2 {
		t.Fatalf("%d cells, %d labs, callers %v", len(made.Cells), len(made.Scenarios), made.Callers)
	}
	for _, c := range made.Cells {
		if i := slices.IndexFunc(made.Cells, func(o Cell) bool { return o.Caller == c.Callee && o.Callee == c.Caller }); i < 0 || made.Cells[i].lab == c.lab {
			t.Errorf("%s comes back in the same lab, or not at all", c.Name())
		}
		want := path.Punched // over the provider's NAT
		if c.Caller != "bob" && c.Callee != "bob" {
			want = path.Direct // on one LAN
		}
		if c.Expected == nil || c.Expected.Path != want {
			t.Errorf("%s: %v, want %s", c.Name(), c.Expected, want)
		}
	}
	if h, _ := made.Scenarios[0].Topology.Hosts.Get("sn1"); len(h.IP) != 1 {
		t.Error("the file's own sn1 has lost its address")
	}
	theory, err := ExplainHosts(s)("alice", "bob", Options{})
	if err != nil || theory.Media.Allowed[0].Path != path.Punched {
		t.Errorf("%v, %v", theory.Media, err)
	}
}

const corporate = `topology:
  middleboxes:
    corp: {preset: port-restricted, deny: [sn1, sn2, sn3, sn4, sn5, sn6, sn7, sn8, sn9, sn10, sn11, sn12]}
    office: {preset: port-restricted, deny: [login]}
    flat: {preset: open}
  hosts:
    alice: {behind: corp}
    bob: {behind: office}
    carol: {behind: flat}
    shop: {}
    login: {}
    "sn[1-12]": {}
`

// What a box denies of the overlay counts in the explanation as in the table.
func TestExplainDenied(t *testing.T) {
	s, err := scenario.Parse("corporate.yaml", []byte(corporate))
	if err != nil {
		t.Fatal(err)
	}
	made, err := Topology(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range made.Cells {
		explained, err := ExplainHosts(s)(c.Caller, c.Callee, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Theory, explained); diff != "" {
			t.Errorf("%s (-table +explained):\n%s", c.Name(), diff)
		}
	}
	explained, err := ExplainHosts(s)("alice", "shop", Options{})
	if err != nil || explained.CallerLogin.String() != path.Failed {
		t.Errorf("alice, who reaches no supernode, logs in: %s, %v", explained.CallerLogin, err)
	}
	if explained, err := ExplainHosts(s)("bob", "shop", Options{}); err != nil || explained.CallerLogin.Allowed[0].Path != path.Relayed {
		t.Errorf("bob, who doesn't reach the login server, logs in: %s, %v", explained.CallerLogin, err)
	}
	if _, err := ExplainHosts(s)("bob", "sn1", Options{}); err == nil || !strings.Contains(err.Error(), "a node of the overlay runs") {
		t.Errorf("a supernode as callee: %v", err)
	}
}

// A login that must fail is waited for, and all calls of its client are expected to
// fail, of those who reach each other too.
func TestFailingLogin(t *testing.T) {
	s, err := scenario.Parse("corporate.yaml", []byte(corporate))
	if err != nil {
		t.Fatal(err)
	}
	made, err := Topology(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, lab := range made.Scenarios {
		for i := range lab.Steps {
			st := &lab.Steps[i]
			if st.Login == nil {
				continue
			}
			fails := st.Login[0] == "alice"
			if fails != (st.Expect.Path == path.Failed) || fails != (st.Within != nil && *st.Within > 20*time.Second) {
				t.Errorf("login of %s: expected %s within %v", st.Login[0], st.Expect.Path, st.Within)
			}
		}
	}
	for _, c := range made.Cells {
		fails := c.Caller == "alice" || c.Callee == "alice"
		if c.Expected == nil || fails != (c.Expected.Path == path.Failed) || fails != (c.Theory.Signalling.String() == path.Failed) {
			t.Errorf("%s: expected %v, in theory %s", c.Name(), c.Expected, c.Theory.Signalling)
		}
	}
}

func TestTopologyRefused(t *testing.T) {
	for text, want := range map[string]string{
		"topology: {middleboxes: {b: {preset: open}}, hosts: {a: {behind: b}, c: {}}}":                            "1 hosts behind boxes",
		"topology: {middleboxes: {b: {preset: open}}, hosts: {a: {behind: b}, c: {behind: b}, sn3: {behind: b}}}": `host "sn3" is behind b`,
	} {
		s, err := scenario.Parse("x.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Topology(s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error about %q", err, want)
		}
	}
}

// results are those of a run in which every call went as expected, but one.
func results(t *testing.T, made *Table) report.Results {
	t.Helper()
	var r report.Results
	for _, c := range made.Cells {
		for _, part := range []string{"signalling", "media"} {
			check := report.Check{ID: c.lab + "/" + c.Name() + "/" + part, Scenario: c.lab, Function: "call " + part, Verdict: verdict.Pass}
			if part == "media" {
				check.Observed = &path.Record{Path: c.Expected.Path}
				for _, transport := range c.Expected.Transports {
					check.Observed.Legs = append(check.Observed.Legs, path.Leg{Transport: transport})
				}
				if c.Name() == "P-P" {
					check.Observed = &path.Record{Path: path.Relayed, Legs: []path.Leg{{Transport: "udp"}, {Transport: "udp"}}}
					check.Verdict, check.Reason = verdict.Fail, "expected punched"
				}
			}
			r.Checks = append(r.Checks, check)
		}
	}
	return r
}

// The table shows expected above observed, marks the cell that differs, and
// gives theory's reasoning for that one alone.
func TestWriteTable(t *testing.T) {
	made := newTable(t, Options{Labs: 2})
	ran := results(t, made)
	ran.Controls = []report.Control{{Control: report.Cut, Subject: "a path", Verdict: verdict.Fail, Expected: "failed", Reason: "still direct"}}
	r, err := made.Results(ran)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r.WriteTable(&text, false)
	for _, want := range []string{
		"! RELAYED UDP+UDP", "= direct tcp", "= relayed tcp+udp",
		"pairs/P-P/media: fail: expected punched",
		"theory of P-P: punched over udp, because",
		"49 pairs in 0.0 s: 48 as expected, 1 differ",
		"negative controls that held: cut 0 of 1\ncut of a path: FAIL: expected failed; still direct\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("nothing like %q in\n%s", want, text.String())
		}
	}
	if n := strings.Count(text.String(), "because"); n != 1 {
		t.Errorf("%d cells are explained", n)
	}
	if i := slices.IndexFunc(r.Checks, func(c report.Check) bool { return c.ID == "pairs/S-Sp/media" }); i < 0 {
		t.Error("no check is called pairs/S-Sp/media")
	}
}

// A run that lacks a check is no table.
func TestMissingCheck(t *testing.T) {
	made := newTable(t, Options{})
	r := results(t, made)
	r.Checks = r.Checks[:len(r.Checks)-1]
	if _, err := made.Results(r); err == nil || !strings.Contains(err.Error(), "media of U-U") {
		t.Errorf("%v", err)
	}
}
