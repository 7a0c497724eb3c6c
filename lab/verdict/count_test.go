package verdict_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"

	"gauntlet/lab/verdict"
)

func TestCount(t *testing.T) {
	for text, holds := range map[string][3]bool{ // for 1, 2 and 3
		"2":    {false, true, false},
		">=2":  {false, true, true},
		"<= 2": {true, true, false},
		">2":   {false, false, true},
		"<2":   {true, false, false},
	} {
		c := count(t, text)
		for i, want := range holds {
			if got := c.Holds(i + 1); got != want {
				t.Errorf("%s holds for %d: %v", text, i+1, got)
			}
		}
		if again := count(t, c.String()); again != c || !c.Asked() {
			t.Errorf("%s is written as %s", text, c)
		}
	}
	if c := (verdict.Count{}); c.Asked() || !c.Holds(7) || !c.IsZero() {
		t.Error("the zero count asks something")
	}
	for _, bad := range []string{"", "two", "-1", ">=", "=2", "+2", "2.0", ">=-1", "99999999999999999999"} {
		if c, err := verdict.ParseCount(bad); err == nil {
			t.Errorf("%q is read as %v", bad, c)
		}
	}
}

func FuzzParseCount(f *testing.F) {
	for _, text := range []string{"2", ">=2", "< 3", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := verdict.ParseCount(text)
		if err != nil {
			return
		}
		if again, err := verdict.ParseCount(c.String()); err != nil || again != c {
			t.Errorf("%q is written as %q: %v", text, c, err)
		}
	})
}

// TestExpectationFile reads an expectation as a scenario file has it, and
// writes it as JSON and back.
func TestExpectationFile(t *testing.T) {
	const text = `
path: relayed
relays: 2
transport: tcp
ordered: true
flows:
  - {from: alice, to: supernode, transport: tcp, port: 443, as: held, opened: 2, left: ">=1"}
  - {from: alice, to: supernode, except: held}
`
	var e verdict.Expectation
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&e); err != nil {
		t.Fatal(err)
	}
	want := verdict.Expectation{
		Path: "relayed", Relays: new(2), Transport: "tcp", Ordered: true,
		Flows: []verdict.FlowPattern{
			{From: "alice", To: "supernode", Transport: "tcp", Port: 443, As: "held", Opened: count(t, "2"), Left: count(t, ">=1")},
			{From: "alice", To: "supernode", Except: "held"},
		},
	}
	exact := cmp.AllowUnexported(verdict.Count{})
	if diff := cmp.Diff(want, e, exact); diff != "" {
		t.Errorf("from YAML (-want +got):\n%s", diff)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back verdict.Expectation
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, back, exact); diff != "" {
		t.Errorf("from JSON %s (-want +got):\n%s", data, diff)
	}
	var bad verdict.Expectation
	if err := yaml.Unmarshal([]byte(`flows: [{opened: many}]`), &bad); err == nil || !strings.Contains(err.Error(), "many") {
		t.Errorf("a count of many gives %v", err)
	}
	schema, err := json.Marshal(jsonschema.Reflect(&e))
	if err != nil || !bytes.Contains(schema, []byte(`"enum":["udp","tcp"]`)) || !bytes.Contains(schema, []byte(`(\u003e=|`)) {
		t.Errorf("schema %s: %v", schema, err)
	}
}
