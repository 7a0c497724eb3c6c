package certify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
)

// Changes certifies what the steps of a scenario change its boxes into, before
// any of them does: each behaviour in a small internet of its own, by the quick
// part of the probe, all at once. A certificate has the step that it belongs to;
// they come in the order of the steps. A behaviour that a box gets several times
// is measured once.
//
// stood, if not nil, is called with each of those internets once the box in it
// behaves as changed and before it is measured. Whatever keeps a behaviour from
// being measured is in its certificates; the error is that ctx ended.
func Changes(ctx context.Context, s *scenario.Scenario, stood func(*internet.Internet) error) ([]Certificate, error) {
	changes := changesOf(s)
	certificates := make([]Certificate, len(changes))
	var group errgroup.Group
	group.SetLimit(together)        // they mostly wait for the kernel
	of := make([]int, len(changes)) // the change whose measurement it shares
	for n, c := range changes {
		of[n] = slices.IndexFunc(changes, c.same)
		if of[n] != n {
			continue
		}
		group.Go(func() error {
			certificates[n] = c.certify(ctx, stood)
			return nil
		})
	}
	group.Wait() // none returns an error
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for n, c := range changes {
		certificates[n] = certificates[of[n]]
		certificates[n].Step = c.step
	}
	return certificates, nil
}

// change is what a step changes a box into.
type change struct {
	step    int // counted from 1
	box     string
	label   string
	mapping middlebox.Mapping // that the topology gives the box: what its LAN's addresses depend on
	pool    *int              // external addresses
	becomes middlebox.Behaviour
	err     error // why that can't be said
}

// changesOf are those of a scenario, in order.
func changesOf(s *scenario.Scenario) (all []change) {
	now := map[string]middlebox.Behaviour{}
	for n, st := range s.Steps {
		for _, v := range st.Interventions() {
			if v.Change == nil {
				continue
			}
			box, _ := s.Topology.Middleboxes.Get(v.Change.Box)
			built, err := box.Behaviour()
			next, wrong := v.Change.Behaviour()
			before, changed := now[v.Change.Box]
			if !changed {
				before = built
			}
			c := change{
				step: n + 1, box: v.Change.Box, label: v.Change.Label(), mapping: built.Mapping, pool: box.Addresses,
				becomes: before.ChangedTo(next), err: errors.Join(err, wrong),
			}
			now[c.box] = c.becomes
			all = append(all, c)
		}
	}
	return all
}

// same says whether two changes make the same of a box.
func (c change) same(other change) bool {
	return c.box == other.box && c.label == other.label && reflect.DeepEqual(c.becomes, other.becomes)
}

// topology is that of a scratch internet: the box by its own name, and the hosts
// that it keeps out of reach.
func (c change) topology() scenario.Topology {
	mapping := cmp.Or(c.mapping, "none")
	t := scenario.Topology{Middleboxes: scenario.Named[scenario.Middlebox]{{
		Name:  c.box,
		Value: scenario.Middlebox{Overrides: scenario.Overrides{Mapping: &mapping, Addresses: c.pool}},
	}}}
	for _, d := range c.becomes.Deny {
		if _, ok := t.Hosts.Get(d.Host); !ok {
			t.Hosts = append(t.Hosts, scenario.Entry[scenario.Host]{Name: d.Host})
		}
	}
	return t
}

// certify measures what the box becomes.
func (c change) certify(ctx context.Context, stood func(*internet.Internet) error) Certificate {
	start := time.Now()
	failed := func(err error) Certificate {
		u := certificate([]internet.Box{{Behaviour: c.becomes, Label: c.label}})
		u.Box, u.Boxes, u.Seconds = c.box, []string{c.box}, time.Since(start).Seconds()
		u.unmeasured(err)
		return u
	}
	if c.err != nil {
		return failed(c.err)
	}
	measured, err := c.measure(ctx, stood)
	if err != nil {
		return failed(fmt.Errorf("change of %s: %w", c.box, err))
	}
	measured.Seconds = time.Since(start).Seconds()
	return measured
}

func (c change) measure(ctx context.Context, stood func(*internet.Internet) error) (m Certificate, err error) {
	i, err := internet.Up(ctx, c.topology())
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := i.Change(c.box, c.becomes, c.label); err != nil {
		return m, err
	}
	if stood != nil {
		if err := stood(i); err != nil {
			return m, err
		}
	}
	b, err := newBench(i)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	b.attach()
	boxes := i.Boxes()
	list := []Certificate{b.certify(ctx, boxes, b.programs(boxes[0], probe.Quick, middlebox.UDP))}
	b.doubt(list)
	return list[0], nil
}
