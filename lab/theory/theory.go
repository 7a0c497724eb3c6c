// Package theory puts the oracle's question for each check of a scenario, from
// the scenario alone, and holds what the wire showed against the answer.
package theory

import (
	"encoding/json"
	"fmt"
	"slices"

	"gauntlet/lab/oracle"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
)

// slow is the rate of a link in bits a second below which whether a call gets
// through is a matter of the link: twice what the 2004 load has at IP level over
// TCP (67.8 kbit/s, papers.md section 2.1).
const slow = 136_000

// profile is the only one whose paths the table of papers.md section 4 is of.
const profile = scenario.DefaultProfile

// Checks returns the theory of every check, by the steps of the scenario: a
// login has one for each client, a call those of its signalling and its media.
// It is nil where theory says nothing: of foreign nodes, of functions that no
// theory is of, and of a profile that punches no holes.
func Checks(s *scenario.Scenario) ([][]*oracle.Function, error) {
	w, err := newWorld(s)
	if err != nil {
		return nil, err
	}
	all := make([][]*oracle.Function, len(s.Steps))
	for i := range s.Steps {
		if all[i], err = w.step(&s.Steps[i]); err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return all, nil
}

// Compare adds the theory to a check that was judged, and fails one that passed
// by a path which theory doesn't allow. f may be nil.
func Compare(c *report.Check, f *oracle.Function) {
	c.Theory = f
	if f == nil || c.Verdict != verdict.Pass || c.Observed == nil || f.Allows(*c.Observed) {
		return
	}
	c.Verdict = verdict.Fail
	c.Reason = fmt.Sprintf("theory allows %s, the wire shows %s", f, report.Describe(*c.Observed))
	if n := len(f.Reasoning); n > 0 {
		c.Reason += "; theory: " + f.Reasoning[n-1]
	}
}

// world is a scenario at one of its steps.
type world struct {
	*scenario.Scenario
	behaviours map[string]middlebox.Behaviour
	// expired are the boxes whose mappings went away since the beginning.
	expired map[string]bool
	// known are the answers given already, since steps repeat.
	known map[string]oracle.Theory
}

func newWorld(s *scenario.Scenario) (*world, error) {
	w := &world{Scenario: s, behaviours: map[string]middlebox.Behaviour{}, expired: map[string]bool{}, known: map[string]oracle.Theory{}}
	for _, e := range s.Topology.Middleboxes {
		b, err := e.Value.Behaviour()
		if err != nil {
			return nil, fmt.Errorf("middlebox %s: %w", e.Name, err)
		}
		w.behaviours[e.Name] = b
	}
	return w, nil
}

// step returns the theory of a step's checks, or has the step change the world.
func (w *world) step(st *scenario.Step) ([]*oracle.Function, error) {
	forget := func(box string) {
		w.expired[box] = true
		clear(w.known)
	}
	switch {
	case st.Change != nil:
		b, err := st.Change.Behaviour()
		if err != nil {
			return nil, err
		}
		w.behaviours[st.Change.Box] = w.behaviours[st.Change.Box].ChangedTo(b)
		clear(w.known)
	case st.Reboot != nil:
		forget(st.Reboot.Box)
	case st.Readdress != nil:
		forget(st.Readdress.Box)
	case st.Expire != nil:
		forget(st.Expire.Box)
	case st.Login != nil:
		var all []*oracle.Function
		for _, name := range st.Login {
			f, err := w.of("login", name, w.Holding("login")[0])
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
		return all, nil
	case st.Call != nil:
		signalling, err := w.of("call signalling", st.Call.Caller, st.Call.Callee)
		if err != nil {
			return nil, err
		}
		media, err := w.of("call media", st.Call.Caller, st.Call.Callee)
		return []*oracle.Function{signalling, media}, err
	case st.Search != nil:
		f, err := w.of("search", st.Search.Caller, st.Search.Callee)
		return []*oracle.Function{f}, err
	default:
		return []*oracle.Function{nil}, nil
	}
	return nil, nil
}

// of asks for one function of two hosts, the nodes on which are of the reference
// overlay.
func (w *world) of(function, caller, callee string) (*oracle.Function, error) {
	if w.Profile != profile || !w.ours(caller) || !w.ours(callee) {
		return nil, nil
	}
	if function != "login" && (w.lossy(caller) || w.lossy(callee)) {
		return nil, nil
	}
	t, err := w.pair(caller, callee)
	if err != nil {
		return nil, err
	}
	f, ok := t.Of(function)
	if !ok {
		return nil, nil
	}
	return &f, nil
}

// pair asks for two hosts, once for both as they are.
func (w *world) pair(caller, callee string) (oracle.Theory, error) {
	key := caller + "\x00" + callee
	if t, ok := w.known[key]; ok {
		return t, nil
	}
	t, err := oracle.Expect(oracle.Pair{Caller: w.end(caller), Callee: w.end(callee)}, w.options(caller, callee))
	if err == nil {
		w.known[key] = t
	}
	return t, err
}

// ours says whether the host's node is one of the reference overlay.
func (w *world) ours(host string) bool {
	n, ok := w.Nodes.Get(host)
	return ok && len(n.Exec) == 0
}

// chain are the boxes in front of a host, from the host outward.
func (w *world) chain(host string) []string {
	h, _ := w.Topology.Hosts.Get(host)
	var names []string
	for name := h.Behind; name != "" && !slices.Contains(names, name); {
		names = append(names, name)
		b, _ := w.Topology.Middleboxes.Get(name)
		name = b.Behind
	}
	return names
}

func (w *world) end(host string) oracle.End {
	e := oracle.End{Name: host}
	for _, name := range w.chain(host) {
		b, _ := w.Topology.Middleboxes.Get(name)
		box := oracle.Box{Name: name, Behaviour: w.behaviours[name]}
		if b.Addresses != nil {
			box.Addresses = *b.Addresses
		}
		e.Boxes = append(e.Boxes, box)
	}
	return e
}

// lossy says whether a link on the way of a host loses packets, or is so slow
// that the path isn't what decides.
func (w *world) lossy(host string) bool {
	h, _ := w.Topology.Hosts.Get(host)
	links := []*scenario.Link{h.Link}
	for _, name := range w.chain(host) {
		b, _ := w.Topology.Middleboxes.Get(name)
		links = append(links, b.Link)
	}
	bad := func(s *scenario.Shape) bool { return s != nil && (s.Loss > 0 || s.Rate > 0 && s.Rate < slow) }
	return slices.ContainsFunc(links, func(l *scenario.Link) bool {
		return l != nil && (bad(&l.Shape) || bad(l.Up) || bad(l.Down))
	})
}

// options are the circumstances of a pair at this step. An end predicts if its
// node's settings say so; it takes both.
func (w *world) options(caller, callee string) oracle.Options {
	o := oracle.Options{Predict: w.predicts(caller) && w.predicts(callee)}
	for _, box := range append(w.chain(caller), w.chain(callee)...) {
		o.Expired = o.Expired || w.expired[box]
	}
	if login := w.Holding("login"); len(login) > 0 {
		o.Login = login[0]
	}
	return o
}

func (w *world) predicts(host string) bool {
	var settings struct {
		Predict bool `json:"predict"`
	}
	n, _ := w.Nodes.Get(host)
	return len(n.Settings) > 0 && json.Unmarshal(n.Settings, &settings) == nil && settings.Predict
}

// Pairs returns the whole theory of the two ends of every call, in the order of
// the steps.
func Pairs(s *scenario.Scenario) ([]oracle.Theory, error) {
	w, err := newWorld(s)
	if err != nil {
		return nil, err
	}
	var all []oracle.Theory
	for i := range s.Steps {
		st := &s.Steps[i]
		if _, err := w.step(st); err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		if st.Call != nil {
			t, err := w.pair(st.Call.Caller, st.Call.Callee)
			if err != nil {
				return nil, fmt.Errorf("step %d: %w", i+1, err)
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// Hosts returns the theory of two hosts of a scenario as it begins. The
// circumstances are o's.
func Hosts(s *scenario.Scenario, caller, callee string, o oracle.Options) (oracle.Theory, error) {
	w, err := newWorld(s)
	if err != nil {
		return oracle.Theory{}, err
	}
	return oracle.Expect(oracle.Pair{Caller: w.end(caller), Callee: w.end(callee)}, o)
}
