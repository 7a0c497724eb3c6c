// Package oracle says by which path each function between two ends goes in
// theory, from the behaviour of the boxes in front of them alone, and why.
//
// It keeps no table. It puts the boxes' models (package middlebox/model) into a
// small internet in memory, has both ends do what the overlay's protocol does
// there (learn their external addresses from supernodes, exchange candidates,
// check all of them, answer to the observed source), and looks which datagrams
// arrive. What got through is then named by design.md's definitions: direct,
// reversed and punched differ in which ends are free. Where the outcome depends
// on who is first, all orders are tried and the theory is a set of paths.
package oracle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gauntlet/lab/path"
	"gauntlet/middlebox"
	"gauntlet/middlebox/model"
)

// Box is a box in front of an end.
type Box struct {
	// Name is the box's identity: boxes of one name in both chains are one box.
	Name      string
	Behaviour middlebox.Behaviour
	// Addresses is how many external addresses the box has; 0 means 1.
	Addresses int
}

// End is a host with the boxes in front of it.
type End struct {
	Name string
	// Boxes are from the host outward; none for a host on the internet.
	Boxes []Box
}

// Pair is who does something with whom.
type Pair struct {
	Caller, Callee End
}

// Options are circumstances.
type Options struct {
	// Expired says that the boxes have forgotten all mappings since the ends
	// last asked for their addresses. An end asks again before it gives one, so
	// the paths stay (papers.md section 4, "expired binding").
	Expired bool
	// Predict says that the ends try the ports after the last seen of a box
	// that gives them out in sequence.
	Predict bool
	// CrossTraffic says that other flows may take the ports that are predicted.
	CrossTraffic bool
	// Login is the name of the login server's host; "" is "login".
	Login string
	// Supernodes are the names of the supernodes' hosts, which boxes may deny;
	// none stands for some that no box does.
	Supernodes []string

	// rotate says that a box with several addresses gives another one each time, to
	// a host that it pairs with one another than to the host before; else it gives
	// the same one always.
	rotate bool
}

// Route is a path with the transport of each of its legs, from the caller on.
type Route struct {
	Path       string   `json:"path"`
	Transports []string `json:"transports,omitempty"`
}

func (r Route) String() string {
	if len(r.Transports) == 0 {
		return r.Path
	}
	return r.Path + " over " + strings.Join(slices.Compact(slices.Clone(r.Transports)), " and ")
}

// Function is the theory of one function.
type Function struct {
	// Allowed are the paths that it may take, the likeliest first; none where
	// theory can't say.
	Allowed []Route `json:"allowed"`
	// Why says why there is not exactly one.
	Why string `json:"why,omitempty"`
	// Reasoning is how that follows, a step a line.
	Reasoning []string `json:"reasoning"`
}

func (f Function) String() string {
	if len(f.Allowed) == 0 {
		return "unable to say"
	}
	words := make([]string, len(f.Allowed))
	for i, r := range f.Allowed {
		words[i] = r.String()
	}
	return strings.Join(words, " or ")
}

// Allows says whether a path that was seen is one of the theory's. A theory
// that can't say allows all. Of a relayed path the first leg is the caller's
// and the last the callee's.
func (f Function) Allows(seen path.Record) bool {
	return len(f.Allowed) == 0 || slices.ContainsFunc(f.Allowed, func(r Route) bool { return r.is(seen) })
}

// Failing is the theory where something outside of it has the function fail, or, if
// that isn't sure, may do so. One that can't say is left as it is unless it is.
func (f Function) Failing(why string, sure bool) Function {
	failed := []Route{{Path: path.Failed}}
	if sure {
		return Function{Allowed: failed, Reasoning: []string{why}}
	}
	f.Allowed = slices.Clone(f.Allowed)
	if len(f.Allowed) > 0 && f.add(failed) {
		f.Why, f.Reasoning = why, append(slices.Clone(f.Reasoning), why)
	}
	return f
}

func (r Route) is(seen path.Record) bool {
	if r.Path != seen.Path {
		return false
	}
	if len(r.Transports) == 0 || len(seen.Legs) == 0 {
		return true
	}
	if r.Path == path.Relayed {
		return seen.Legs[0].Transport == r.Transports[0] &&
			seen.Legs[len(seen.Legs)-1].Transport == r.Transports[len(r.Transports)-1]
	}
	return !slices.ContainsFunc(seen.Legs, func(l path.Leg) bool { return l.Transport != r.Transports[0] })
}

// Theory is what is expected of a pair of ends.
type Theory struct {
	Media       Function `json:"media"`
	Signalling  Function `json:"signalling"`
	Search      Function `json:"search"` // its authorization exchange
	CallerLogin Function `json:"caller_login"`
	CalleeLogin Function `json:"callee_login"`
}

// Of returns the theory of a function by the word that checks use: "login",
// "search", "call signalling" or "call media". It is false for others.
func (t Theory) Of(function string) (Function, bool) {
	switch function {
	case "login":
		return t.CallerLogin, true
	case "search":
		return t.Search, true
	case "call signalling":
		return t.Signalling, true
	case "call media":
		return t.Media, true
	}
	return Function{}, false
}

// Expect reasons out the paths of a pair. It fails if a behaviour isn't valid,
// or the two chains are not those of one topology.
func Expect(p Pair, o Options) (Theory, error) {
	if o.Login == "" {
		o.Login = "login"
	}
	if err := p.check(); err != nil {
		return Theory{}, fmt.Errorf("oracle: %w", err)
	}
	if why := p.beyond(); why != "" {
		silent := Function{Allowed: []Route{}, Why: why, Reasoning: []string{why}}
		return Theory{silent, silent, silent, silent, silent}, nil
	}
	all := make([]Theory, 0, 2)
	for _, o.rotate = range p.pools() {
		t, err := drawn(p, o)
		if err != nil {
			return Theory{}, err
		}
		all = append(all, t)
	}
	return together(all), nil
}

// drawn reasons with what boxes give of their addresses settled.
func drawn(p Pair, o Options) (Theory, error) {
	r := &reasoner{pair: p, options: o}
	t := Theory{CallerLogin: r.login(caller), CalleeLogin: r.login(callee), Signalling: r.signalling(callRelays)}
	var searches, media []Function
	for _, r.deaf = range r.draws() {
		searches, media = append(searches, r.search()), append(media, r.media())
	}
	const why = "an end whose own supernode answers no datagrams takes UDP to be blocked, and which supernode that is, is chance"
	t.Search, t.Media = union(why, searches...), union(why, media...)
	if r.err != nil {
		return Theory{}, fmt.Errorf("oracle: %w", r.err)
	}
	return t, nil
}

// pools are the ways in which the addresses may be drawn that boxes give, the
// likelier one first: another one each time and, where that may be, the same always.
func (p Pair) pools() []bool {
	several := func(b Box) bool { return b.Addresses > 1 && b.Behaviour.Translates() }
	if slices.ContainsFunc(p.Caller.Boxes, several) || slices.ContainsFunc(p.Callee.Boxes, several) {
		return []bool{true, false}
	}
	return []bool{false}
}

// together are the theories of several draws of addresses in one.
func together(all []Theory) (t Theory) {
	for _, f := range []func(*Theory) *Function{
		func(t *Theory) *Function { return &t.Media }, func(t *Theory) *Function { return &t.Signalling },
		func(t *Theory) *Function { return &t.Search },
		func(t *Theory) *Function { return &t.CallerLogin }, func(t *Theory) *Function { return &t.CalleeLogin },
	} {
		var each []Function
		for i := range all {
			each = append(each, *f(&all[i]))
		}
		*f(&t) = union("which of its addresses a box gives is chance", each...)
	}
	return t
}

// check looks whether the chains can be those of one topology: from a box that
// both have outward, they are the same.
func (p Pair) check() error {
	if p.Caller.Name == "" || p.Callee.Name == "" || p.Caller.Name == p.Callee.Name {
		return fmt.Errorf("ends %q and %q; expected two names", p.Caller.Name, p.Callee.Name)
	}
	for _, e := range []End{p.Caller, p.Callee} {
		for i, b := range e.Boxes {
			if slices.ContainsFunc(e.Boxes[:i], func(o Box) bool { return o.Name == b.Name }) || b.Name == "" {
				return fmt.Errorf("%s: box %q has no name or comes twice", e.Name, b.Name)
			}
		}
	}
	a, b := p.Caller.Boxes, p.Callee.Boxes
	i := slices.IndexFunc(a, func(x Box) bool { return indexOf(b, x.Name) >= 0 })
	if i < 0 {
		return nil
	}
	j := indexOf(b, a[i].Name)
	same := func(x, y Box) bool { return x.Name == y.Name }
	if !slices.EqualFunc(a[i:], b[j:], same) {
		return fmt.Errorf("%s and %s share %s, but not all that is outside it", p.Caller.Name, p.Callee.Name, a[i].Name)
	}
	return nil
}

func indexOf(boxes []Box, name string) int {
	return slices.IndexFunc(boxes, func(b Box) bool { return b.Name == name })
}

// shared says whether one box is in front of both ends, and its name.
func (p Pair) shared() (string, bool) {
	for _, b := range p.Caller.Boxes {
		if indexOf(p.Callee.Boxes, b.Name) >= 0 {
			return b.Name, true
		}
	}
	return "", false
}

// mediaRate is the packets a second of the 2004 load each way (papers.md
// section 2.1), with room for the checks beside it.
const mediaRate = 100

// beyond says what of the boxes the theory doesn't cover, "" if nothing.
func (p Pair) beyond() string {
	for _, e := range []End{p.Caller, p.Callee} {
		for _, b := range e.Boxes {
			if field := model.Beyond(b.Behaviour); field != "" {
				return fmt.Sprintf("%s: path theory says nothing about a box with %s", b.Name, field)
			}
			if n := b.Behaviour.UDPRate; n > 0 && n < mediaRate {
				return fmt.Sprintf("%s lets through %d UDP packets a second, fewer than a call needs: what is left of it is chance", b.Name, n)
			}
		}
	}
	return ""
}

// MarshalJSON writes no reasoning as a list, never as null.
func (f Function) MarshalJSON() ([]byte, error) {
	type plain Function
	if f.Allowed == nil {
		f.Allowed = []Route{}
	}
	if f.Reasoning == nil {
		f.Reasoning = []string{}
	}
	return json.Marshal(plain(f))
}
