package pairs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
	"gauntlet/lab/scenario"
	"gauntlet/lab/theory"
	"gauntlet/lab/verdict"
)

// failing is how long the lab waits for a login that may fail: longer than the
// node's own limit, 20 s with this profile.
const failing = 25 * time.Second

// call is a cell with the hosts that stand for it.
type call struct {
	Cell
	caller, callee string
	boxes          []string
}

// source is the text of a scenario while it is written. A lab is a scenario file
// like any other, so that a report holds what was run.
type source struct {
	text    strings.Builder
	predict bool
	behind  [][2]string // host and box
	clients []string
}

func newSource(o Options) *source { return &source{predict: o.Predict} }

func (s *source) line(format string, args ...any) { fmt.Fprintf(&s.text, format+"\n", args...) }

// nodes adds the overlay's nodes.
func (s *source) nodes() {
	s.line("nodes:")
	s.line("  login: {role: login}")
	s.line("  update: {role: update}")
	s.line(`  "sn[1-%d]": {role: supernode}`, supernodes)
	settings := ""
	if s.predict {
		settings = ", settings: {predict: true}"
	}
	for _, name := range s.clients {
		s.line("  %s: {role: client%s}", name, settings)
	}
}

// steps adds the logins and the calls, reads the whole and enters it in the
// table. What is expected where nothing is written is what theory says, so the
// text is read once without expectations.
func (t *Table) steps(o Options, id string, s *source, calls []call) error {
	expect := func(logins []oracle.Function, media, signalling func(n int) string) string {
		var text source
		text.line("steps:")
		for i, name := range s.clients {
			text.line("  - login: [%s]", name)
			text.line("    expect: %s", flow(logins[i]))
			if slices.ContainsFunc(logins[i].Allowed, func(r oracle.Route) bool { return r.Path == path.Failed }) {
				text.line("    within: %v", failing)
			}
		}
		for n, c := range calls {
			if o.Expired {
				for _, box := range c.boxes {
					text.line("  - expire: {box: %s}", box)
				}
			}
			length := o.Call
			if length == 0 {
				length = DefaultCall
			}
			text.line("  - call: {caller: %s, callee: %s, for: %v}", c.caller, c.callee, length)
			text.line("    name: %s", c.Name())
			text.line("    expect: {signalling: %s, media: %s}", signalling(n), media(n))
		}
		return text.text.String()
	}
	anything := func(int) string { return flow(oracle.Function{}) }
	logins := make([]oracle.Function, len(s.clients))
	bare, err := scenario.Parse(id+".yaml", []byte(s.text.String()+expect(logins, anything, anything)))
	if err != nil {
		return err
	}
	theories, err := theory.Pairs(bare)
	if err != nil {
		return err
	}
	for i, name := range s.clients {
		for n, c := range calls {
			switch name {
			case c.caller:
				logins[i] = theories[n].CallerLogin
			case c.callee:
				logins[i] = theories[n].CalleeLogin
			}
		}
	}
	for n := range calls {
		c := &calls[n].Cell
		c.Theory, c.Expected = theories[n], only(theories[n].Media)
		if route, ok := Written(c.Caller, c.Callee, o.Predict); ok {
			c.Expected = &route
		}
		t.Cells = append(t.Cells, *c)
	}
	media := func(n int) string {
		if c := calls[n]; c.Expected != nil {
			return flow(oracle.Function{Allowed: []oracle.Route{*c.Expected}})
		}
		return flow(theories[n].Media)
	}
	signalling := func(n int) string { return flow(theories[n].Signalling) }
	whole, err := scenario.Parse(id+".yaml", []byte(s.text.String()+expect(logins, media, signalling)))
	if err != nil {
		return err
	}
	t.Scenarios = append(t.Scenarios, whole)
	return nil
}

// only is the one path that theory allows, nil if it is not one.
func only(f oracle.Function) *oracle.Route {
	if len(f.Allowed) != 1 {
		return nil
	}
	return &f.Allowed[0]
}

// flow writes what theory allows as an expectation of a scenario file. The
// transports of a relayed path's legs are left to theory where they differ, and so
// is which of several paths it is.
func flow(f oracle.Function) string {
	r := only(f)
	if r == nil {
		return "{path: " + verdict.AnyPath + "}"
	}
	parts := []string{"path: " + r.Path}
	if r.Path == path.Relayed {
		parts = append(parts, "hops: 1")
	}
	if n := len(r.Transports); n > 0 && r.Transports[0] == r.Transports[n-1] {
		parts = append(parts, "transport: "+r.Transports[0])
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
