package certify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
)

// Short is what the timers of a preset are shortened to, to be measured: the
// shortest that a behaviour can have is a second, and this leaves the tests of
// refreshing twice that. That of transitory TCP connections is half of it, so
// that a box which takes one for the other is found.
const (
	Short      = 2 * time.Second
	transitory = Short / 2
)

// together is how many cells are measured at once. They mostly wait for
// timers.
const together = 16

// widest is the largest block of ports that is measured: twice the default.
const widest = 2 * middlebox.DefaultPortBlock

// box and hosts of the topology in which a cell is measured. The deny lists
// of presets are about a host "login".
const (
	boxName   = "box"
	loginHost = "login"
)

// pooled is how many external addresses a preset gets that says how it chooses
// among several.
const pooled = 4

// PresetCells are the cells of presets, all of them if none is named.
func PresetCells(names ...string) (cells []Cell, err error) {
	if len(names) == 0 {
		names = middlebox.Presets()
	}
	for _, name := range names {
		b, ok := middlebox.Preset(name)
		if !ok {
			return nil, fmt.Errorf("certify: unknown preset %q; expected one of %v", name, middlebox.Presets())
		}
		c := Cell{Name: name, Behaviour: b}
		if b.Pool != "" {
			c.Addresses = pooled
		}
		cells = append(cells, c)
	}
	return cells, nil
}

// Cells measures cells by the whole of the probe: each in a small internet of
// its own, its timers as they are and once more shortened. The certificates are
// in the order of the cells, without those that are refused.
func Cells(ctx context.Context, cells []Cell) ([]Certificate, error) {
	cells = slices.DeleteFunc(slices.Clone(cells), func(c Cell) bool { return len(c.Refused) > 0 })
	certificates := make([]Certificate, len(cells))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for n, c := range cells {
		group.Go(func() (err error) {
			if certificates[n], err = measured(ctx, c); err != nil {
				return fmt.Errorf("certify %s: %w", c.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return certificates, nil
}

// measured measures one.
func measured(ctx context.Context, cell Cell) (c Certificate, err error) {
	start := time.Now()
	box := scenario.Middlebox{Overrides: scenario.Overrides{Mapping: &cell.Behaviour.Mapping}}
	if cell.Addresses > 0 {
		box.Addresses = &cell.Addresses
	}
	i, err := internet.Up(ctx, scenario.Topology{
		Middleboxes: scenario.Named[scenario.Middlebox]{{Name: boxName, Value: box}},
		Hosts:       scenario.Named[scenario.Host]{{Name: loginHost}, {Name: "inside", Value: scenario.Host{Behind: boxName}}},
	})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := i.Change(boxName, cell.Behaviour, cell.Name); err != nil {
		return c, err
	}
	b, err := newBench(i)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	b.attach()
	chain := i.Boxes()
	c = b.certify(ctx, chain, b.whole(chain[0]))
	list := []Certificate{c}
	b.doubt(list)
	if ctx.Err() != nil {
		return c, context.Cause(ctx)
	}
	c = list[0]
	c.Seconds = time.Since(start).Seconds()
	return c, nil
}

// whole is the full measurement of a box with its programs, timers and rates.
func (b *bench) whole(box internet.Box) measurement {
	full := b.programs(box, probe.Full, middlebox.UDP, middlebox.TCP)
	return func(ctx context.Context, w *probe.Watch, s probe.Subject) (m probe.Properties, err error) {
		if m, err = full(ctx, w, s); err != nil {
			return m, err
		}
		if open := m.Mapping == "none" && m.Filtering == string(middlebox.FilterEndpointIndependent); !open || box.Behaviour.TCPIdle > 0 {
			if err := probe.Lifetimes(ctx, w, s, b.internet.Namespace(box.Name), &m); err != nil {
				return m, err
			}
		}
		udp := m.Mapping != "" // where it doesn't pass it has neither timers nor rates
		if rate := box.Behaviour.UDPRate; rate > 0 && udp {
			if m.UDPRate, m.UDPRateInward, err = probe.Rate(ctx, w, s, rate); err != nil {
				return m, err
			}
		}
		if m.Ports == string(middlebox.BlockPorts) { // of which some are taken by now
			if err := errors.Join(b.internet.Reset(box.Name), w.Reloaded(box.Name)); err != nil {
				return m, err
			}
			if m.PortBlock, err = probe.Block(ctx, w, s, widest); err != nil {
				return m, err
			}
		}
		if box.Behaviour.UDPUnreplied > 0 && udp {
			if err := probe.Stream(ctx, w, s, b.internet.Namespace(box.Name), &m); err != nil {
				return m, err
			}
		}
		short := box.Behaviour
		short.UDPTimeout, short.UDPUnreplied = Short, 0
		short.TCPEstablished, short.TCPTransitory = Short, transitory
		if short.TCPIdle > 0 {
			short.TCPIdle = Short
		}
		if err := b.internet.Change(box.Name, short, box.Label); err != nil {
			return m, fmt.Errorf("shorten timers: %w", err)
		}
		// The mappings are gone; the flows would clash with what gets their ports.
		if err := middlebox.FlushConntrack(b.internet.Namespace(box.Name)); err != nil {
			return m, fmt.Errorf("shorten timers: %w", err)
		}
		if err := w.Reloaded(box.Name); err != nil {
			return m, err
		}
		told := probe.Told{UDP: Short, TCPEstablished: Short, TCPTransitory: transitory}
		if err := probe.Timers(ctx, w, s, told, &m); err != nil {
			return m, err
		}
		if short.TCPIdle > 0 && !slices.Contains(m.Block, string(middlebox.TCP)) {
			m.TCPIdle, err = probe.Idle(ctx, w, s, Short)
		}
		return m, err
	}
}

// Verdict is that of a preset: pass, fail, or inconclusive where it could not
// be measured.
func (c Certificate) Verdict() string {
	switch {
	case c.Unmeasured:
		return verdict.Inconclusive
	case !c.Certified():
		return verdict.Fail
	}
	return verdict.Pass
}
