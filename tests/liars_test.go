package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"

	"gauntlet/lab/internet"
	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// liar is a lie, told by a node of the scenario or by the lab itself, and what
// catches it.
type liar struct {
	scenario string // in liars/
	told     string // how, for a person
	// lie tells it through the lab; nil where a node's setting "lie" does.
	lie     func(*run.Options)
	check   string // that is caught
	verdict string
	reason  string // a regular expression: the lie by its name
	spared  string // a check that the lie is not about, which passes
}

var liars = []liar{
	{
		"claims-direct", "the node's claim", nil,
		"send", verdict.Fail, `the node claims direct but the wire shows relayed \(1 hop, `, "",
	},
	{
		"box", "full-cone rules in a box that says port-restricted", func(o *run.Options) { o.Built = opens("home-a", "full-cone") },
		"send", verdict.Inconclusive, `^home-a \(port-restricted\): .*filtering`, "",
	},
	{
		"box-becomes", "full-cone rules where a change to port-restricted is measured", func(o *run.Options) { o.Changed = opens("home-a", "full-cone") },
		"after", verdict.Inconclusive, `^home-a \(port-restricted, changed in step 2\): .*filtering`, "before",
	},
	{
		"box-stays", "a box that a step doesn't change", func(o *run.Options) { o.Turned = opens("home-a", "port-restricted") },
		"after", verdict.Inconclusive, `^a negative control failed: canary of home-a in box-stays, changed in step 2: 3 of 3 went out`, "",
	},
	{
		"box-turns", "a firewall opened after it was measured", func(o *run.Options) { o.Certified = opens("wall", "open") },
		"send", verdict.Inconclusive, `wall filters \(address-and-port-dependent\) and yet let in a packet of alice to bob that was not asked for`, "",
	},
	{
		"capture", "8 KiB of buffer for each tap", func(o *run.Options) { o.RingBytes = 1 },
		"call/signalling", verdict.Inconclusive, `^the capture at .* lost \d+ of \d+ packets`, "",
	},
	{
		"secret-relay", "a copy of each media packet through the relay", nil,
		"call/media", verdict.Inconclusive, `^relay carried the payload beside the direct path: alice -> relay -> bob`, "",
	},
	{
		"secret-tap", "a copy of each media packet to the relay", nil,
		"call/media", verdict.Inconclusive, `^relay took \d+ bytes of the payload from alice beside the direct path`, "",
	},
	{
		"two-paths", "the payload over UDP and over TCP", nil,
		"send", verdict.Inconclusive, `^the payload went from alice to bob over 2 flows at once: udp .* and tcp `, "",
	},
	{
		"stripes", "the payload again, in six pieces", nil,
		"send", verdict.Inconclusive, `^901 bytes went out of alice, as much as the payload, over 6 flows, each too small to carry it: udp alice .* relay .* and 3 more`, "",
	},
}

// Whoever lies is caught, and the reason says which lie it was; the same
// scenario without the lie passes.
func TestLiars(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		skip(t, "python3 is not installed")
	}
	var mu sync.Mutex
	rows := make([]table.Row, len(liars))
	t.Run("all", func(t *testing.T) {
		for i, l := range liars {
			t.Run(l.scenario, func(t *testing.T) {
				t.Parallel()
				told := l.run(t, true).Checks
				c := named(t, told, l.scenario+"/"+l.check)
				mu.Lock()
				rows[i] = table.Row{l.scenario, l.told, c.Verdict, short(c.Reason)}
				mu.Unlock()
				if c.Verdict != l.verdict || !regexp.MustCompile(l.reason).MatchString(c.Reason) {
					t.Errorf("%s: %s: %s\nwant %s: %s\n%s", c.ID, c.Verdict, c.Reason, l.verdict, l.reason, strings.Join(c.Notes, "\n"))
				}
				if l.spared != "" {
					if c := named(t, told, l.scenario+"/"+l.spared); c.Verdict != verdict.Pass {
						t.Errorf("%s, which the lie is not about: %s: %s", c.ID, c.Verdict, c.Reason)
					}
				}
				honest := l.run(t, false).Checks
				named(t, honest, l.scenario+"/"+l.check)
				for _, c := range honest {
					if c.Verdict != verdict.Pass {
						t.Errorf("the honest twin of %s: %s: %s", c.ID, c.Verdict, c.Reason)
					}
				}
			})
		}
	})
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.AppendHeader(table.Row{"lie", "told by", "verdict", "reason"})
	for _, row := range rows {
		if row != nil {
			w.AppendRow(row)
		}
	}
	t.Logf("\n%s", w.Render())
}

// named is the check of that ID, without which nothing is asserted.
func named(t *testing.T, checks []report.Check, id string) report.Check {
	t.Helper()
	var ids []string
	for _, c := range checks {
		if c.ID == id {
			return c
		}
		ids = append(ids, c.ID)
	}
	t.Fatalf("no check %s; there are %q", id, ids)
	return report.Check{}
}

// short keeps a reason to a line of a table.
func short(reason string) string {
	const most = 110
	if len(reason) <= most {
		return reason
	}
	return reason[:most] + " ..."
}

// run runs the liar's scenario with the lie or without it.
func (l liar) run(t *testing.T, lie bool) report.Results {
	t.Helper()
	dir := filepath.Join("liars")
	text, err := os.ReadFile(filepath.Join(dir, l.scenario+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if l.lie == nil {
		if !lie {
			honest := bytes.Replace(text, []byte("lie: "+l.scenario), []byte("lie: none"), 1)
			if bytes.Equal(honest, text) {
				t.Fatalf("%s tells no lie of its name", l.scenario)
			}
			text = honest
		}
		place := t.TempDir()
		file := filepath.Join(place, l.scenario+".yaml")
		node, err := os.ReadFile(filepath.Join(dir, "node.py"))
		if err == nil {
			err = os.WriteFile(filepath.Join(place, "node.py"), node, 0o644)
		}
		if err == nil {
			err = os.WriteFile(file, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, _ := results(t, file)
		return r
	}
	h, err := ns.New() // the lab of this process, which may not be allowed to
	if err != nil {
		skip(t, fmt.Sprintf("no network namespaces: %v", err))
	}
	h.Close()
	s, err := scenario.Read(filepath.Join(dir, l.scenario+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		t.Fatal(err)
	}
	o := run.Options{Work: t.TempDir(), Node: []string{gauntlet, "node"}, Parallel: 2}
	if lie {
		l.lie(&o)
	}
	r, err := run.Scenarios(t.Context(), []*scenario.Scenario{s}, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// opens loads the rules of a preset into a box behind the lab's back.
func opens(name, preset string) func(*internet.Internet) error {
	return func(i *internet.Internet) error {
		b, ok := i.Plan.Box(name)
		if !ok {
			return fmt.Errorf("no box %s", name)
		}
		behaviour, _ := middlebox.Preset(preset)
		rules, err := middlebox.Rules(middlebox.Box{
			Name: b.Name, Behaviour: behaviour, WAN: "wan", LAN: "lan",
			WANAddrs: b.WAN, LANPrefix: b.LAN, LogGroup: internet.LogGroup,
		})
		if err != nil {
			return err
		}
		loader, err := middlebox.NewLoader(i.Namespace(name))
		if err != nil {
			return err
		}
		err = loader.Load(rules)
		if closing := loader.Close(); err == nil {
			err = closing
		}
		return err
	}
}
