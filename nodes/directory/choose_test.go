package directory

import (
	"context"
	"slices"
	"testing"

	"gauntlet/nodes/profile"
)

// ring is a set of supernodes in which those responsible for a name are fixed.
type ring struct {
	all         []Supernode
	responsible map[string][]Supernode
}

func (r ring) Self() Supernode                                       { return r.all[0] }
func (r ring) All() []Supernode                                      { return r.all }
func (r ring) Responsible(name string, n int) []Supernode            { return r.responsible[name][:n] }
func (ring) Call(context.Context, Supernode, string, any, any) error { return nil }

func TestRelaysAreOutsideOwnAndResponsible(t *testing.T) {
	p, err := profile.Named(profile.NEC2006)
	if err != nil {
		t.Fatal(err)
	}
	all := supernodes(12)
	s := &Server{profile: p, supernodes: ring{all: all, responsible: map[string][]Supernode{
		"alice": all[2:5], "bob": all[5:8],
	}}}
	seen := map[string]int{}
	for range 200 {
		places, err := s.choose("alice", "bob", all[1], 4, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(places) != 4 {
			t.Fatalf("%d relays of the 4 that are free", len(places))
		}
		ids := map[any]bool{}
		for _, place := range places {
			if slices.ContainsFunc(all[:8], func(b Supernode) bool { return b.Name == place.Relay.Name }) {
				t.Fatalf("%s relays, which is a user's own or responsible", place.Relay.Name)
			}
			ids[place.ID] = true
		}
		if len(ids) != 4 {
			t.Error("two relays have one session")
		}
		seen[places[0].Relay.Name]++
	}
	if len(seen) != 4 {
		t.Errorf("the carrying relay is always one of %v", seen)
	}
	s.supernodes = ring{all: all[:8], responsible: map[string][]Supernode{"alice": all[2:5], "bob": all[5:8]}}
	if _, err := s.choose("alice", "bob", all[1], 4, nil); err == nil {
		t.Error("relays are chosen where none is free")
	}
}
