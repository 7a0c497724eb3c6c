// Package pairs makes the table of NAT pairs: a call between every two kinds of
// box, run as any scenario is, with what the wire showed beside what papers.md
// section 4 says and what the oracle reasons out.
package pairs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/oracle"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
)

// ID is the first part of the names of all checks.
const ID = "pairs"

// DefaultCall is how long media flows in each call: 98 packets each way of the
// 2004 load, 6.6 kB, of which the judging wants three quarters. A flow that
// doesn't carry must stay below a quarter of that, which leaves room for one
// keep-alive of the overlay, of 1200 bytes.
const DefaultCall = 1400 * time.Millisecond

// supernodes is how many the overlay has: the ends' own, the responsible ones
// and a call's four relays are all different.
const supernodes = 12

// Options say which table is made.
type Options struct {
	// Presets are added to the seven kinds of the table; they are named by
	// themselves.
	Presets []string
	// Expired lets all UDP mappings of both boxes run out before each call.
	Expired bool
	// Predict has the clients guess the ports of boxes that give them out in
	// sequence.
	Predict bool
	// Call is how long media flows; 0 is DefaultCall.
	Call time.Duration
	// Labs is how many labs the callers are split over; 0 means 1.
	Labs int
}

// Table is a table before anything is driven.
type Table struct {
	// Callers and Callees are the labels of the rows and columns.
	Callers, Callees []string
	Cells            []Cell
	Scenarios        []*scenario.Scenario
}

// Cell is a pair, with what is expected of its call.
type Cell struct {
	Caller, Callee string // labels
	// Expected is what is written of the media, or, where nothing is, what
	// theory says; nil where it allows several paths.
	Expected *oracle.Route
	Theory   oracle.Theory

	lab string // ID of the scenario in which it is called
}

// Name is what the cell's call is called: its checks are NAME/signalling and
// NAME/media.
func (c Cell) Name() string { return c.Caller + "-" + c.Callee }

// axis is a kind of box, or a host of a topology.
type axis struct {
	label, preset string
}

// axes are the kinds of the table and the presets that are added.
func (o Options) axes() ([]axis, error) {
	var all []axis
	for _, k := range kinds {
		all = append(all, axis{k.class, k.preset})
	}
	for _, name := range o.Presets {
		a, err := axisOf(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// axisOf finds a class or a preset by its name.
func axisOf(name string) (axis, error) {
	for _, k := range kinds {
		if strings.EqualFold(name, k.class) || name == k.preset {
			return axis{k.class, k.preset}, nil
		}
	}
	if _, ok := middlebox.Preset(name); !ok {
		return axis{}, fmt.Errorf("unknown preset %q; expected %s", name, strings.Join(middlebox.Presets(), ", "))
	}
	return axis{name, name}, nil
}

// Presets makes the table of the seven kinds and the presets that are added.
func Presets(o Options) (*Table, error) {
	axes, err := o.axes()
	if err != nil {
		return nil, err
	}
	t := &Table{}
	for _, a := range axes {
		t.Callers, t.Callees = append(t.Callers, a.label), append(t.Callees, a.label)
	}
	labs := min(max(o.Labs, 1), len(axes))
	for n := range labs {
		var callers []axis
		for i, a := range axes {
			if i%labs == n {
				callers = append(callers, a)
			}
		}
		if err := t.add(o, labID(n, labs), callers, axes); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func labID(n, of int) string {
	if of == 1 {
		return ID
	}
	return fmt.Sprintf("%s-%d", ID, n+1)
}

// add adds a lab in which some callers call all callees. Nobody is both, and
// every pair meets once, so that no earlier call has left anything between two.
func (t *Table) add(o Options, id string, callers, callees []axis) error {
	s := newSource(o)
	s.line("name: %s", "calls between every two kinds of box")
	s.line("topology:")
	s.line("  middleboxes:")
	for _, side := range []struct {
		role string
		axes []axis
	}{{"caller", callers}, {"callee", callees}} {
		for _, a := range side.axes {
			s.line("    %s: {preset: %s}", boxName(side.role, a.label), a.preset)
			s.behind = append(s.behind, [2]string{hostName(side.role, a.label), boxName(side.role, a.label)})
		}
	}
	s.line("  hosts:")
	s.line(`    login: {}`)
	s.line(`    update: {}`)
	s.line(`    "sn[1-%d]": {}`, supernodes)
	for _, b := range s.behind {
		s.line("    %s: {behind: %s}", b[0], b[1])
		s.clients = append(s.clients, b[0])
	}
	s.nodes()
	var calls []call
	for _, a := range callers {
		for _, b := range callees {
			boxes := []string{boxName("caller", a.label), boxName("callee", b.label)}
			calls = append(calls, call{
				Cell:   Cell{Caller: a.label, Callee: b.label, lab: id},
				caller: hostName("caller", a.label), callee: hostName("callee", b.label), boxes: boxes,
			})
		}
	}
	return t.steps(o, id, s, calls)
}

func boxName(role, label string) string  { return "box-" + hostName(role, label) }
func hostName(role, label string) string { return role + "-" + strings.ToLower(label) }

// Explain reasons out the functions between two classes or presets, without a
// lab.
func Explain(caller, callee string, o Options) (oracle.Theory, error) {
	p := oracle.Pair{Caller: oracle.End{Name: "the caller"}, Callee: oracle.End{Name: "the callee"}}
	for _, e := range []struct {
		end       *oracle.End
		name, box string
	}{{&p.Caller, caller, "the caller's box"}, {&p.Callee, callee, "the callee's box"}} {
		a, err := axisOf(e.name)
		if err != nil {
			return oracle.Theory{}, err
		}
		b, _ := middlebox.Preset(a.preset)
		e.end.Boxes = []oracle.Box{{Name: e.box, Behaviour: b}}
	}
	return oracle.Expect(p, oracle.Options{Expired: o.Expired, Predict: o.Predict})
}
