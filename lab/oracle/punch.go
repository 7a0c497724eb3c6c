package oracle

import (
	"slices"
	"strings"

	"gauntlet/middlebox"
)

// openings is how many first turns are tried in every order.
const openings = 4

// orders are the orders of turns that are tried: all for the first turns, then
// one end after the other until nothing new can come.
func orders() [][]int {
	var all [][]int
	for mask := range 1 << openings {
		var order []int
		for n := range openings {
			order = append(order, mask>>n&1)
		}
		all = append(all, append(order, caller, callee, caller, callee, caller, callee))
	}
	return all
}

// outcome is how UDP works between the ends: the kinds of path that it takes
// where it does, and the boxes that the first of them leads around.
type outcome struct {
	always, sometimes bool
	kinds             []string
	around            []string
}

// punch runs the checks in every order. The story told is that of the first
// order, and of the first that ends otherwise.
func (r *reasoner) punch(t terms, s *story) (o outcome) {
	t.options, t.deaf = r.options, r.deaf
	disturbed := []bool{false}
	if r.options.Predict && r.options.CrossTraffic {
		disturbed = append(disturbed, true)
	}
	works := func(order []int, together, others bool, told *story) bool {
		c, err := newTalk(r.pair, t, told)
		if err != nil {
			r.err = err
			return false
		}
		c.disturbed = others
		c.play(order, together)
		if c.err != nil {
			r.err = c.err
		}
		if c.settled() {
			around := c.around()
			if kind := r.kind(middlebox.UDP, around); !slices.Contains(o.kinds, kind) {
				if o.kinds = append(o.kinds, kind); len(o.kinds) == 1 {
					o.around = around
				}
			}
		}
		return c.settled()
	}
	first := works(orders()[0], false, false, s)
	o.always, o.sometimes = first, first
	for _, others := range disturbed {
		for n, order := range orders() {
			together := n == 0 && !others // once, both first requests on their way at once
			if r.err != nil {
				return outcome{}
			}
			ok := works(order, together, others, nil)
			if ok != first && o.always == o.sometimes {
				s.line("but in another order, or with other flows between, it is otherwise:")
				works(order, together, others, s)
			}
			o.always, o.sometimes = o.always && ok, o.sometimes || ok
		}
	}
	return o
}

// direct says by which paths UDP goes between the ends without a node between.
func (r *reasoner) direct(private bool, s *story) (routes []Route, o outcome, why string) {
	o = r.punch(terms{private: private}, s)
	for _, kind := range o.kinds {
		routes = append(routes, Route{kind, []string{udp}})
	}
	if len(o.around) > 0 {
		s.line("that pair leads out of %s and in again, whose filtering so is on each end's side", strings.Join(o.around, " and "))
	}
	if len(o.kinds) > 1 {
		why = "it depends on which pair is found first"
	}
	if o.sometimes && !o.always {
		why = "it depends on whose packet is first"
		if r.options.Predict && r.options.CrossTraffic {
			why = "another flow may take the port that was predicted"
		}
	}
	shared, near := r.pair.shared()
	if !near || o.always {
		return routes, o, why
	}
	// What else an end might try that is behind the same box as its peer.
	if unseen := r.punch(terms{private: true, unseen: true}, nil); unseen.sometimes && !o.sometimes {
		for _, kind := range unseen.kinds {
			routes = append(routes, Route{kind, []string{udp}})
		}
		why = "both are behind " + shared + " and reach each other there, if they exchange addresses that no supernode has seen"
		s.line("%s", why)
	}
	return routes, o, why
}
