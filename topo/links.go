package topo

import (
	"errors"
	"fmt"
	"time"

	"gauntlet/topo/ns"
	"gauntlet/topo/pump"
)

// links is one more namespace, between the uplinks that have delay, jitter or
// loss and the ports they are attached to. Nobody captures there: what a host
// sends is seen at the host before it is delayed or lost, what it receives
// after that.
//
//	host or box       links                      outside
//	uplink ---------- i0 [ pump, or netem ] o0 ---------- port
//
// A link with a delay alone is left to the kernel where that has netem: a
// bridge between the two ends, and netem on both. All else is the pump's, since
// netem reorders under jitter and takes no seed.
type links struct {
	seed   uint64
	all    []*impaired
	handle *ns.Handle
	rtnl   *rtnl
	pump   *pump.Pump
}

// impaired is one link.
type impaired struct {
	*space
	near, far end // names and indexes in the namespace of the links
	bridge    int // between the two; 0 for a link of the pump
}

// Indexes in the namespace of the links: three to a link, from here on.
const firstLink = 10

// impairs says whether the link does anything but bound the rate, or may come to.
func (l Link) impairs() bool {
	return l.Varies || l.Up.impairs() || l.Down.impairs()
}

// random says whether frames fare differently, or may come to.
func (l Link) random() bool { return l.Varies || l.Up.random() || l.Down.random() }

func (s Shape) impairs() bool { return s.Delay > 0 || s.Jitter > 0 || s.Loss > 0 }

// random says whether frames fare differently.
func (s Shape) random() bool { return s.Jitter > 0 || s.Loss > 0 }

func (s Shape) impairment() pump.Impairment {
	return pump.Impairment{Delay: s.Delay, Jitter: s.Jitter, Loss: s.Loss}
}

// add takes the link of a host or box.
func (l *links) add(s *space) {
	n, addr := len(l.all), s.outside[0].Addr()
	s.impaired = &impaired{
		space: s,
		near:  end{fmt.Sprint("i", n), firstLink + 3*n, hardwareAddress(nearEnd, addr)},
		far:   end{fmt.Sprint("o", n), firstLink + 3*n + 1, hardwareAddress(farEnd, addr)},
	}
	l.all = append(l.all, s.impaired)
}

// open makes the namespace, and bridges where netem is to do the work.
func (l *links) open() (err error) {
	if l.handle, err = ns.New(); err != nil {
		return err
	}
	err = l.handle.Do(func() (err error) {
		if l.rtnl, err = openRTNL(); err != nil {
			return err
		}
		return setParameters(false)
	})
	if err != nil {
		return err
	}
	kernel := false
	if err := l.shape(func(s *shaper) error {
		lacks, err := s.delay(loopback, time.Millisecond)
		if kernel = err == nil && !lacks; kernel {
			err = s.undelay(loopback, time.Millisecond)
		}
		return err
	}); err != nil {
		return err
	}
	for n, i := range l.all {
		if kernel && !i.link.random() {
			i.bridge = firstLink + 3*n + 2
			l.rtnl.addBridge(fmt.Sprint("b", n), i.bridge, hardwareAddress(middle, i.outside[0].Addr()))
		}
	}
	return l.rtnl.flush()
}

// shape runs f with a shaper of the namespace.
func (l *links) shape(f func(*shaper) error) error {
	s, err := newShaper(l.handle)
	if err != nil {
		return err
	}
	defer s.close()
	return f(s)
}

// connect makes the inner halves of the links; the outer ones come with the
// ports outside.
func (l *links) connect() error {
	for _, i := range l.all {
		l.rtnl.addVeth(i.near, i.bridge, i.inner(), i.handle)
	}
	return l.rtnl.flush()
}

// configure brings the outer ends up.
func (l *links) configure() error {
	for _, i := range l.all {
		if i.bridge != 0 {
			l.rtnl.setMaster(i.far.name, i.far.index, i.bridge)
		}
		l.rtnl.setUp(i.far.name, i.far.index)
	}
	return l.rtnl.flush()
}

// finish starts the pump, and netem.
func (l *links) finish() error {
	var pumped []pump.Link
	for _, i := range l.all {
		for _, e := range []end{i.near, i.far} {
			if err := l.rtnl.ready(e.name); err != nil {
				return err
			}
		}
		if i.bridge == 0 {
			pumped = append(pumped, pump.Link{
				Name: i.name, Inner: i.near.name, Outer: i.far.name,
				Up: i.link.Up.impairment(), Down: i.link.Down.impairment(), Seed: l.seed,
			})
		}
	}
	if len(pumped) > 0 {
		var err error
		if l.pump, err = pump.Start(l.handle, pumped); err != nil {
			return err
		}
	}
	return l.calm(false)
}

// calm switches the impairments off, or on.
func (l *links) calm(calm bool) error {
	if l.pump != nil {
		l.pump.Calm(calm)
	}
	return l.shape(func(s *shaper) error {
		for _, i := range l.all {
			if i.bridge == 0 {
				continue
			}
			for _, lane := range []struct {
				index int
				delay time.Duration
			}{{i.far.index, i.link.Up.Delay}, {i.near.index, i.link.Down.Delay}} {
				if lane.delay == 0 {
					continue
				}
				var err error
				if calm {
					err = s.undelay(lane.index, lane.delay)
				} else {
					_, err = s.delay(lane.index, lane.delay)
				}
				if err != nil {
					return fmt.Errorf("link of %s: %w", i.name, err)
				}
			}
		}
		return nil
	})
}

// lose has a link of the pump lose a share of its frames from now on, each way.
func (l *links) lose(name string, share float64) error {
	for _, i := range l.all {
		if i.name == name && i.link.Varies {
			up, down := i.link.Up, i.link.Down
			up.Loss, down.Loss = share, share
			l.pump.Impair(name, up.impairment(), down.impairment())
			return nil
		}
	}
	return errors.New("its link is not one that varies")
}

// close ends the pump and gives the namespace up.
func (l *links) close() error {
	var errs []error
	if l.pump != nil {
		errs = append(errs, l.pump.Close())
	}
	if l.handle != nil {
		errs = append(errs, l.handle.Close())
	}
	return errors.Join(errs...)
}
