// Package certify measures the middleboxes of a lab before they are trusted:
// each from its own LAN to its own WAN link, a chain of them once more from end
// to end, beside what they declare.
package certify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/internet"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
)

// Certificate is the measurement of a box, or of a chain of boxes from end to
// end.
type Certificate struct {
	// Box is the box's name; of a chain, the names, innermost first, joined by
	// "behind".
	Box string `json:"box"`
	// Boxes are the boxes between the two ends, innermost first.
	Boxes []string `json:"boxes"`
	// Label is the preset of each box, joined like Box, or "custom".
	Label    string           `json:"label"`
	Declared probe.Properties `json:"declared"`
	Measured probe.Properties `json:"measured"`
	// Differences are where the measurement differs from the declaration, in
	// words, or why nothing was measured. Without any, the box is certified.
	Differences []string `json:"differences"`
	// Step is the step, counted from 1, that changes the box into this; 0 for
	// what the box is before any does.
	Step int `json:"step,omitempty"`
	// Unmeasured says that the measurement itself failed: of the box nothing is
	// known, rather than something wrong.
	Unmeasured bool    `json:"unmeasured,omitempty"`
	Seconds    float64 `json:"seconds"`
}

// Certified says whether the box was measured to be what it declares.
func (c Certificate) Certified() bool { return len(c.Differences) == 0 }

// parallel is how many boxes are measured at once.
const parallel = 4

// behind joins names of boxes, innermost first.
const behind = " behind "

// Boxes certifies all boxes of an internet by the quick part of the probe, and
// each chain of boxes once more from end to end. The boxes come in the order of
// the plan, outermost first, then the chains.
//
// Nothing else may send through the boxes meanwhile, and nobody else may read
// their drop logs. The links have no delay, jitter or loss as long, since it is
// the boxes that are measured. When it returns, its measuring points are gone, and all
// boxes are as they were when they were built: no flows, sets empty, counters
// zero. What is wrong with a box is in its certificate; the error is for what
// kept all from being measured.
func Boxes(ctx context.Context, i *internet.Internet) (certificates []Certificate, err error) {
	boxes := i.Boxes()
	if len(boxes) == 0 {
		return nil, nil
	}
	// A packet that a link loses would look like one that a box filters.
	if err := i.Calm(true); err != nil {
		return nil, fmt.Errorf("certify: %w", err)
	}
	b, err := newBench(i)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("certify: %w", err), i.Calm(false))
	}
	defer func() {
		if err = errors.Join(err, b.close(), i.Calm(false), reset(i, boxes)); err != nil {
			certificates, err = nil, fmt.Errorf("certify: %w", err)
		}
	}()
	b.attach()
	certificates = make([]Certificate, len(boxes))
	var group errgroup.Group
	group.SetLimit(parallel)
	for n, box := range boxes {
		group.Go(func() error {
			certificates[n] = b.certify(ctx, []internet.Box{box}, b.programs(box, probe.Quick, middlebox.UDP))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	// One after the other: several chains may share a box, whose ports in a row
	// are theirs in turn.
	for _, chain := range chains(boxes) {
		certificates = append(certificates, b.certify(ctx, chain, probe.Quick))
	}
	b.doubt(certificates)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return certificates, nil
}

// chains returns the chains of more than one box, each innermost first, that
// are not part of a longer one.
func chains(boxes []internet.Box) (all [][]internet.Box) {
	of := map[string]internet.Box{}
	outer := map[string]bool{}
	for _, b := range boxes {
		of[b.Name] = b
		outer[b.Behind] = true
	}
	for _, b := range boxes {
		if outer[b.Name] || b.Behind == "" {
			continue
		}
		chain := []internet.Box{b}
		for name := b.Behind; name != ""; name = of[name].Behind {
			chain = append(chain, of[name])
		}
		all = append(all, chain)
	}
	return all
}

// measurement is a part of the probe.
type measurement func(context.Context, *probe.Watch, probe.Subject) (probe.Properties, error)

// certify measures a chain of boxes, innermost first.
func (b *bench) certify(ctx context.Context, chain []internet.Box, measure measurement) Certificate {
	start := time.Now()
	c := certificate(chain)
	s, err := b.subject(chain)
	if err == nil {
		c.Measured, err = measure(ctx, b.watch, s)
	}
	if err != nil {
		c.unmeasured(err)
	} else {
		c.Differences = probe.Differences(c.Declared, c.Measured)
	}
	c.Seconds = time.Since(start).Seconds()
	return c
}

func (c *Certificate) unmeasured(err error) {
	c.Unmeasured = true
	c.Differences = append(c.Differences, fmt.Sprintf("not measured: %v", err))
}

// certificate is that of a chain before anything is measured.
func certificate(chain []internet.Box) Certificate {
	var labels []string
	var behaviours []middlebox.Behaviour
	c := Certificate{}
	for _, box := range chain {
		c.Boxes = append(c.Boxes, box.Name)
		labels = append(labels, cmp.Or(box.Label, "custom"))
		behaviours = append(behaviours, box.Behaviour)
	}
	c.Box, c.Label = strings.Join(c.Boxes, behind), strings.Join(labels, behind)
	c.Declared = probe.Declared(behaviours...)
	return c
}

// doubt ends the watch and enters what it is not certain about into the
// certificates of the boxes.
func (b *bench) doubt(certificates []Certificate) {
	doubts := b.watch.Close()
	for n := range certificates {
		for _, name := range certificates[n].Boxes {
			if err := doubts[name]; err != nil {
				certificates[n].unmeasured(err)
			}
		}
	}
}

// reset puts all boxes back to how they were built.
func reset(i *internet.Internet, boxes []internet.Box) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, b := range boxes {
		group.Go(func() error { return i.Reset(b.Name) })
	}
	return group.Wait()
}

// Failed returns the differences of all certificates that concern one of some
// boxes at a step, counted from 1, each with the box's name: a check of that
// step whose packets pass those boxes is inconclusive for these reasons. What a
// change made of a box holds until the box is changed again, what was wrong
// before the first change for good.
func Failed(certificates []Certificate, boxes []string, step int) (reasons []string) {
	changed := map[string]int{} // by box, the last step that changed it
	for _, c := range certificates {
		if c.Step < step {
			changed[c.Box] = max(changed[c.Box], c.Step)
		}
	}
	for _, c := range certificates {
		concerns := slices.ContainsFunc(c.Boxes, func(name string) bool { return slices.Contains(boxes, name) })
		if c.Certified() || !concerns || c.Step != 0 && c.Step != changed[c.Box] {
			continue
		}
		name := c.Label
		if c.Step != 0 {
			name += fmt.Sprintf(", changed in step %d", c.Step)
		}
		reasons = append(reasons, fmt.Sprintf("%s (%s): %s", c.Box, name, strings.Join(c.Differences, "; ")))
	}
	return reasons
}
