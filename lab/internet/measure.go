package internet

import (
	"context"
	"fmt"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// Box is a box as it stands.
type Box struct {
	topo.Box
	Behaviour middlebox.Behaviour
	Label     string
}

// Boxes are all boxes as they stand, outermost first.
func (i *Internet) Boxes() []Box {
	labels := map[string]string{}
	for _, c := range i.changes {
		labels[c.Box] = c.Label
	}
	var boxes []Box
	for _, planned := range i.Plan.Boxes {
		boxes = append(boxes, Box{Box: planned, Behaviour: i.boxes[planned.Name].behaviour, Label: labels[planned.Name]})
	}
	return boxes
}

// Bench makes a bench for measuring points in this internet.
func (i *Internet) Bench() *topo.Bench { return topo.NewBench(i.Plan, i.network) }

// Reset puts a box back to how it was when it was built, as switching it off and
// on does: its rules are loaded anew, so that its counters are zero and its sets
// empty, it forgets all flows, and its programs start anew.
func (i *Internet) Reset(name string) error {
	b, ok := i.boxes[name]
	if !ok {
		return fmt.Errorf("reset: unknown middlebox %q", name)
	}
	if err := b.stop(); err != nil {
		return err
	}
	if err := i.load(b); err != nil {
		return err
	}
	if err := b.loader.FlushConntrack(); err != nil {
		return fmt.Errorf("middlebox %s: %w", name, err)
	}
	return i.start(context.Background(), b)
}

// CatchUp returns when a box keeps to all port mappings that were answered before
// the call.
func (i *Internet) CatchUp(name string) error {
	b, ok := i.boxes[name]
	if !ok {
		return fmt.Errorf("port mappings: unknown middlebox %q", name)
	}
	if b.gateway == nil {
		return nil
	}
	if err := b.gateway.CatchUp(); err != nil {
		return fmt.Errorf("middlebox %s: %w", name, err)
	}
	return nil
}

// ExpireUDP makes a box forget all UDP mappings and flows, as when their timers
// run out. TCP connections and counters stay.
func (i *Internet) ExpireUDP(name string) error {
	b, ok := i.boxes[name]
	if !ok {
		return fmt.Errorf("expire: unknown middlebox %q", name)
	}
	if err := b.loader.ExpireUDP(); err != nil {
		return fmt.Errorf("middlebox %s: %w", name, err)
	}
	return nil
}
