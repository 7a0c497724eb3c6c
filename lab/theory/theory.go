// Package theory puts the oracle's question for each check of a scenario, from
// the scenario alone, and holds what the wire showed against the answer.
package theory

import (
	"encoding/json"
	"fmt"
	"slices"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
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

// Answer is what theory says of a check.
type Answer struct {
	// Function is nil where theory says nothing: of foreign nodes, of functions
	// that no theory is of, and of a profile that punches no holes.
	*oracle.Function
	// Silent is why it says nothing, "" where it does say something.
	Silent string
}

// Checks returns the theory of every check, by the steps of the scenario: a
// login has one for each client, a call those of its signalling and its media.
func Checks(s *scenario.Scenario) ([][]Answer, error) {
	w, err := newWorld(s)
	if err != nil {
		return nil, err
	}
	all := make([][]Answer, len(s.Steps))
	for i := range s.Steps {
		if all[i], err = w.step(&s.Steps[i]); err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return all, nil
}

// Compare adds the theory to a check that was judged, and fails one that passed
// by a path which theory doesn't allow.
func Compare(c *report.Check, a Answer) {
	f := a.Function
	c.Theory, c.NoTheory = f, a.Silent
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
	// ill are the nodes that something was done to.
	ill map[string]bool
	// logins are the theories of the last logins, by host.
	logins map[string]*oracle.Function
	// known are the answers given already, since steps repeat.
	known map[string]oracle.Theory
}

func newWorld(s *scenario.Scenario) (*world, error) {
	w := &world{
		Scenario: s, behaviours: map[string]middlebox.Behaviour{}, expired: map[string]bool{}, ill: map[string]bool{},
		logins: map[string]*oracle.Function{}, known: map[string]oracle.Theory{},
	}
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
func (w *world) step(st *scenario.Step) ([]Answer, error) {
	switch {
	case st.Action() != "":
		return nil, w.intervene(&st.Intervention)
	case st.Login != nil:
		var all []Answer
		for _, name := range st.Login {
			a, err := w.of("login", name, w.Holding("login")[0])
			if err != nil {
				return nil, err
			}
			w.logins[name] = a.Function
			clear(w.known)
			all = append(all, a)
		}
		return all, nil
	case st.Call != nil:
		signalling, err := w.of("call signalling", st.Call.Caller, st.Call.Callee)
		if err != nil {
			return nil, err
		}
		media, err := w.of("call media", st.Call.Caller, st.Call.Callee)
		if err != nil || st.Expect.After == nil {
			return []Answer{signalling, media}, err
		}
		for i := range st.Call.During {
			if err := w.intervene(&st.Call.During[i].Intervention); err != nil {
				return nil, err
			}
		}
		after, err := w.of("call media", st.Call.Caller, st.Call.Callee)
		return []Answer{signalling, media, after}, err
	case st.Search != nil:
		a, err := w.of("search", st.Search.Caller, st.Search.Callee)
		return []Answer{a}, err
	case st.Exchange != nil:
		a, err := w.of(st.Exchange.Function, st.Exchange.Caller, st.Exchange.Callee)
		return []Answer{a}, err
	case st.Presence != nil:
		a, err := w.of(st.Kind(), st.Presence.Caller, st.Presence.Callee)
		return []Answer{a}, err
	default:
		return []Answer{{Silent: "path theory has none of a " + st.Kind()}}, nil
	}
}

// intervene has the world change as the lab changes it.
func (w *world) intervene(v *scenario.Intervention) error {
	switch {
	case v.Change != nil:
		b, err := v.Change.Behaviour()
		if err != nil {
			return err
		}
		w.behaviours[v.Change.Box] = w.behaviours[v.Change.Box].ChangedTo(b)
	case v.Reboot != nil, v.Expire != nil, v.Readdress != nil:
		w.expired[v.Target()] = true
	default:
		w.ill[v.Target()] = v.Resume == nil && (v.Lose == nil || v.Lose.Loss > 0)
	}
	clear(w.known)
	return nil
}

// unwell is a node that functions need and that something was done to, "" if there
// is none. Supernodes don't count: the overlay has others.
func (w *world) unwell() string {
	for _, e := range w.Nodes {
		if w.ill[e.Name] && e.Value.Role != "supernode" {
			return e.Name
		}
	}
	return ""
}

// of asks for one function of two hosts.
func (w *world) of(function, caller, callee string) (Answer, error) {
	for _, host := range []string{caller, callee} {
		if !w.ours(host) {
			return Answer{Silent: fmt.Sprintf("the node of %s is not the reference overlay's", host)}, nil
		}
	}
	if name := w.unwell(); name != "" {
		return Answer{Silent: fmt.Sprintf("something was done to %s, which may decide the path", name)}, nil
	}
	if w.Profile != profile {
		return Answer{Silent: "path theory is that of profile " + profile}, nil
	}
	for _, host := range []string{caller, callee} {
		if function != "login" && w.lossy(host) {
			return Answer{Silent: fmt.Sprintf("a link of %s loses packets or is slow, which may decide the path", host)}, nil
		}
	}
	if function != "login" && w.unrelayed() {
		return Answer{Silent: "no supernode relays anything"}, nil
	}
	if _, ok := (oracle.Theory{}).Of(function); !ok {
		return Answer{Silent: "path theory has none of a " + function}, nil
	}
	t, err := w.pair(caller, callee)
	if err != nil {
		return Answer{}, err
	}
	f, _ := t.Of(function)
	return Answer{Function: &f}, nil
}

// pair asks for two hosts, once for both as they are.
func (w *world) pair(caller, callee string) (oracle.Theory, error) {
	key := caller + "\x00" + callee
	if t, ok := w.known[key]; ok {
		return t, nil
	}
	t, err := oracle.Expect(oracle.Pair{Caller: w.end(caller), Callee: w.end(callee)}, w.options(caller, callee))
	if err != nil {
		return t, err
	}
	for _, host := range []string{caller, callee} {
		login := w.logins[host]
		if login == nil || len(login.Allowed) == 0 || !login.Allows(path.Record{Path: path.Failed}) {
			continue
		}
		why, sure := host+"'s login fails", len(login.Allowed) == 1
		if !sure {
			why = host + "'s login may have failed"
		}
		for _, f := range []*oracle.Function{&t.Media, &t.Signalling, &t.Search} {
			*f = f.Failing(why, sure)
		}
	}
	w.known[key] = t
	return t, nil
}

// ours says whether the host's node is one of the reference overlay.
func (w *world) ours(host string) bool {
	n, ok := w.Nodes.Get(host)
	return ok && !n.Foreign()
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
	o.Supernodes = w.Holding("supernode")
	return o
}

func (w *world) predicts(host string) bool {
	var settings struct {
		Predict bool `json:"predict"`
	}
	n, _ := w.Nodes.Get(host)
	return len(n.Settings) > 0 && json.Unmarshal(n.Settings, &settings) == nil && settings.Predict
}

// unrelayed says whether no supernode relays anything.
func (w *world) unrelayed() bool {
	supernodes := w.Holding("supernode")
	return len(supernodes) > 0 && !slices.ContainsFunc(supernodes, func(name string) bool {
		var settings struct {
			Sessions *int `json:"relay_sessions"`
		}
		n, _ := w.Nodes.Get(name)
		full := len(n.Settings) > 0 && json.Unmarshal(n.Settings, &settings) == nil && settings.Sessions != nil && *settings.Sessions == 0
		return !full
	})
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
