// Package verdict compares what the wire shows with what was expected and with
// what the node claims.
package verdict

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
)

// Expectation is what a scenario says of one function. What is left out is
// not asked.
type Expectation struct {
	// Path is direct, reversed, punched, relayed or failed; or any, for any that
	// gets through: then theory alone decides.
	Path string `yaml:"path,omitempty" json:"path,omitempty" jsonschema:"enum=any,enum=direct,enum=reversed,enum=punched,enum=relayed,enum=failed"`
	// Hops is the number of relays in the chain that carries.
	Hops *int `yaml:"hops,omitempty" json:"hops,omitempty" jsonschema:"minimum=0"`
	// Relays is the number of relays that both ends hold.
	Relays *int `yaml:"relays,omitempty" json:"relays,omitempty" jsonschema:"minimum=0"`
	// Carrying is how many relays carry payload.
	Carrying *int `yaml:"carrying,omitempty" json:"carrying,omitempty" jsonschema:"minimum=0"`
	// Transport is that of every leg that carries: udp or tcp.
	Transport string `yaml:"transport,omitempty" json:"transport,omitempty" jsonschema:"enum=udp,enum=tcp"`
	// Flows are patterns of the flows that must be seen.
	Flows []FlowPattern `yaml:"flows,omitempty" json:"flows,omitempty"`
	// Ordered says that the patterns' first packets come in the order listed.
	Ordered bool `yaml:"ordered,omitempty" json:"ordered,omitempty"`

	// Of a call's media.
	Stream `yaml:",inline"`
}

// AnyPath is expected where several paths are right.
const AnyPath = "any"

// Validate returns what is wrong with the expectation, in the words of the
// scenario file. It does not know which hosts and roles there are.
func (e Expectation) Validate() []error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	paths := []string{AnyPath, path.Direct, path.Reversed, path.Punched, path.Relayed, path.Failed}
	if e.Path != "" && !slices.Contains(paths, e.Path) {
		say("path %q: expected one of %s", e.Path, strings.Join(paths, ", "))
	}
	for _, n := range []struct {
		name  string
		value *int
	}{{"hops", e.Hops}, {"relays", e.Relays}, {"carrying", e.Carrying}} {
		if n.value != nil && *n.value < 0 {
			say("%s %d: expected a number that is not negative", n.name, *n.value)
		}
	}
	if err := checkTransport(e.Transport); err != nil {
		errs = append(errs, err)
	}
	if e.Path == path.Failed && (e.Hops != nil || e.Relays != nil || e.Carrying != nil || e.Transport != "") {
		say("path: failed: nothing carries then; expected no hops, relays, carrying or transport")
	}
	errs = append(errs, e.checkCarriers()...)
	errs = append(errs, e.Stream.validate()...)
	if e.Ordered && len(e.Flows) < 2 {
		say("ordered: expected at least two flows to be in order")
	}
	names := map[string]bool{}
	for n, p := range e.Flows {
		for _, err := range p.validate(names) {
			say("flows, entry %d: %w", n+1, err)
		}
		if p.As != "" {
			names[p.As] = true
		}
	}
	return errs
}

// checkCarriers returns what can't be of the relays that carry on a path.
func (e Expectation) checkCarriers() (errs []error) {
	for _, n := range []struct {
		name  string
		value *int
	}{{"hops", e.Hops}, {"carrying", e.Carrying}} {
		if n.value == nil || *n.value < 0 {
			continue
		}
		switch e.Path {
		case path.Relayed:
			if *n.value == 0 {
				errs = append(errs, fmt.Errorf("%s: 0: path: relayed has relays that carry; expected at least 1, or no %s", n.name, n.name))
			}
		case path.Direct, path.Reversed, path.Punched:
			if *n.value > 0 {
				errs = append(errs, fmt.Errorf("%s: %d: no relay carries on path: %s; expected 0, or no %s", n.name, *n.value, e.Path, n.name))
			}
		}
	}
	return errs
}

func checkTransport(t string) error {
	if t != "" && t != evidence.UDP && t != evidence.TCP {
		return fmt.Errorf("transport %q: expected udp or tcp", t)
	}
	return nil
}

// meets says whether the wire shows what is expected. A path that failed has
// nothing more to ask.
func (e Expectation) meets(wire path.Record) bool {
	switch {
	case e.Path == AnyPath:
		if wire.Path == path.Failed {
			return false
		}
	case e.Path != "" && e.Path != wire.Path:
		return false
	}
	if e.Path == path.Failed {
		return true
	}
	is := func(want *int, have int) bool { return want == nil || *want == have }
	if !is(e.Hops, wire.Hops) || !is(e.Relays, wire.Relays) || !is(e.Carrying, wire.Carrying) {
		return false
	}
	if e.Transport == "" {
		return true
	}
	return len(wire.Legs) > 0 && !slices.ContainsFunc(wire.Legs, func(l path.Leg) bool {
		return l.Transport != e.Transport
	})
}

// String writes the expectation of the path as part of a sentence.
func (e Expectation) String() string {
	var about []string
	if e.Hops != nil {
		about = append(about, plural(*e.Hops, "hop"))
	}
	if e.Relays != nil {
		about = append(about, plural(*e.Relays, "relay"))
	}
	if e.Carrying != nil {
		about = append(about, fmt.Sprintf("%d carrying", *e.Carrying))
	}
	if e.Transport != "" {
		about = append(about, "over "+e.Transport)
	}
	name := e.Path
	if name == "" || name == AnyPath {
		name = "any path"
	}
	if len(about) == 0 {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, strings.Join(about, ", "))
}

// errSame is a pattern that leaves out the host that it names itself.
var errSame = errors.New("as and except have the same name")
