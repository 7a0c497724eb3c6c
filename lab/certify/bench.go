package certify

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/internet"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
	"gauntlet/topo"
)

// bench holds the measuring points of an internet: two hosts on the LAN of
// each box, three addresses on each network that a box is attached to.
type bench struct {
	internet *internet.Internet
	points   *topo.Bench
	watch    *probe.Watch
	denied   []probe.Target

	mu      sync.Mutex // guards what follows
	inside  map[string][2]probe.Host
	outside map[string][3]probe.Host // by the box outside, or topo.InternetName
	missing map[string]error         // why there are no points at a place
}

// newBench begins to watch all boxes.
func newBench(i *internet.Internet) (*bench, error) {
	b := &bench{
		internet: i, points: i.Bench(), watch: probe.NewWatch(), denied: denied(i),
		inside: map[string][2]probe.Host{}, outside: map[string][3]probe.Host{}, missing: map[string]error{},
	}
	for _, box := range i.Boxes() {
		if err := b.watch.Box(box.Name, i.Namespace(box.Name), internet.LogGroup); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

// close removes all points and ends the watch, unless doubt has.
func (b *bench) close() error {
	b.watch.Close()
	return b.points.Close()
}

// denied returns all hosts that some box keeps out of reach. All boxes are
// tried with them.
func denied(i *internet.Internet) (targets []probe.Target) {
	for _, box := range i.Boxes() {
		for _, d := range box.Behaviour.Deny {
			n := slices.IndexFunc(targets, func(t probe.Target) bool { return t.Name == d.Host })
			if n < 0 {
				h, ok := i.Plan.Host(d.Host)
				if !ok {
					continue
				}
				n = len(targets)
				targets = append(targets, probe.Target{Name: d.Host, Addr: h.Addrs[0], Space: i.Namespace(d.Host)})
			}
			if d.Port != 0 && !slices.Contains(targets[n].Ports, d.Port) {
				targets[n].Ports = append(targets[n].Ports, d.Port)
			}
		}
	}
	return targets
}

// place is the name of the network that a box is attached to.
func place(box internet.Box) string {
	if box.Behind == "" {
		return topo.InternetName
	}
	return box.Behind
}

// attach makes all points, as far as it can: a LAN may be full.
func (b *bench) attach() {
	routes := map[string][]topo.Route{topo.InternetName: nil}
	for _, box := range b.internet.Boxes() {
		at := place(box)
		if _, ok := routes[at]; !ok {
			routes[at] = nil
		}
		if !box.Translates && at != topo.InternetName { // whose router knows the way
			routes[at] = append(routes[at], topo.Route{To: box.LAN, Via: box.WAN[0]})
		}
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	try := func(at string, attach func() error) {
		group.Go(func() error {
			if err := attach(); err != nil {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.missing[at] = err
			}
			return nil
		})
	}
	for at, to := range routes {
		try(at, func() error { return b.attachOutside(at, to) })
	}
	for _, box := range b.internet.Boxes() {
		try(box.Name, func() error { return b.attachInside(box.Name) })
	}
	group.Wait() // none returns an error
}

func (b *bench) attachOutside(at string, routes []topo.Route) error {
	addrs, err := b.points.Free(at, 3)
	if err != nil {
		return err
	}
	space, err := b.points.Attach(at, addrs, routes...)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	hosts := b.outside[at]
	for n, a := range addrs {
		hosts[n] = probe.Host{Space: space, Addr: a}
	}
	b.outside[at] = hosts
	return nil
}

func (b *bench) attachInside(box string) error {
	addrs, err := b.points.Free(box, 2)
	if err != nil {
		return err
	}
	var hosts [2]probe.Host
	for n, a := range addrs {
		space, err := b.points.Attach(box, []netip.Addr{a})
		if err != nil {
			return err
		}
		hosts[n] = probe.Host{Space: space, Addr: a}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside[box] = hosts
	return nil
}

// subject is a chain of boxes, innermost first, from the LAN of the first to
// the network outside the last. It fails if one of the two has no points.
func (b *bench) subject(chain []internet.Box) (probe.Subject, error) {
	lan, wan := chain[0].Name, place(chain[len(chain)-1])
	if err := errors.Join(b.missing[lan], b.missing[wan]); err != nil {
		return probe.Subject{}, err
	}
	s := probe.Subject{LAN: b.inside[lan], WAN: b.outside[wan], Denied: b.outOf(lan)}
	for _, box := range chain {
		s.Boxes = append(s.Boxes, box.Name)
		if box.Translates {
			s.External = box.WAN // in the end those of the outermost that translates
		}
		s.Services = append(s.Services, box.Behaviour.Allow...)
		s.Pace = max(s.Pace, pace(box.Behaviour))
	}
	return s, nil
}

// outOf returns the denied hosts outside a box that it knows by their own
// addresses: of those behind a box that translates, another outside knows that
// box alone.
func (b *bench) outOf(box string) (targets []probe.Target) {
	outside := map[string]bool{}
	for at, _ := b.internet.Plan.Box(box); at.Behind != ""; at, _ = b.internet.Plan.Box(at.Behind) {
		outside[at.Behind] = true
	}
	translates := map[string]bool{}
	for _, x := range b.internet.Boxes() {
		translates[x.Name] = x.Translates
	}
	for _, t := range b.denied {
		if !slices.ContainsFunc(b.internet.Plan.Chain(t.Name), func(name string) bool {
			return name == box || translates[name] && !outside[name]
		}) {
			targets = append(targets, t)
		}
	}
	return targets
}

// pace keeps the probe below the rate that a box lets through, by a tenth.
func pace(b middlebox.Behaviour) time.Duration {
	if b.UDPRate == 0 {
		return 0
	}
	return 11 * time.Second / time.Duration(10*b.UDPRate)
}
