// Package internet stands a scenario's topology up: namespaces and links from
// its plan, and in every box the rules of its behaviour.
package internet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/evidence"
	"gauntlet/lab/gateway"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo"
	"gauntlet/topo/ns"
)

// LogGroup is the NFLOG group of every box's drops; each box has a namespace,
// and so a set of groups, of its own.
const LogGroup = 1

// Internet is a topology that stands.
type Internet struct {
	// Plan is as the addresses are now.
	Plan *topo.Plan

	network *topo.Network
	boxes   map[string]*box
	changes []evidence.Change
	// leases chooses new external addresses; former are those that a box had.
	leases *topo.Bench
	former map[string][]netip.Addr

	// The options.
	logs  string // folder for the logs of boxes' programs
	seed  uint64
	given map[string]*ns.Handle
}

type box struct {
	topo.Box
	behaviour middlebox.Behaviour
	loader    *middlebox.Loader
	gateway   *gateway.Gateway // its programs, nil if it has none
	unserved  error            // why they don't run though they should
}

// Up builds the topology of a scenario, loads the rules of its boxes and starts
// their programs. What was made so far is undone where it fails.
func Up(ctx context.Context, t scenario.Topology, options ...Option) (_ *Internet, err error) {
	i := &Internet{boxes: map[string]*box{}, former: map[string][]netip.Addr{}}
	for _, option := range options {
		option(i)
	}
	plan, err := topo.NewPlan(t.Description())
	if err != nil {
		for _, h := range i.given {
			err = errors.Join(err, h.Close())
		}
		return nil, err
	}
	plan.Seed = i.seed
	i.Plan = plan
	if i.network, err = topo.BuildIn(ctx, plan, i.given); err != nil {
		return nil, fmt.Errorf("build the topology: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Close())
		}
	}()
	i.leases = i.Bench()
	var load errgroup.Group
	load.SetLimit(4)
	for _, planned := range plan.Boxes {
		described, _ := t.Middleboxes.Get(planned.Name)
		behaviour, err := described.Behaviour()
		if err != nil {
			return nil, fmt.Errorf("middlebox %s: %w", planned.Name, err)
		}
		b := &box{Box: planned, behaviour: behaviour}
		i.boxes[planned.Name] = b
		i.changes = append(i.changes, change(time.Time{}, b, described.Label()))
		load.Go(func() error { return i.load(b) })
	}
	if err := load.Wait(); err != nil {
		return nil, err
	}
	if err := i.serve(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

func change(at time.Time, b *box, label string) evidence.Change {
	return evidence.Change{
		Time: at, Box: b.Name, Label: label,
		Translates:   b.behaviour.Translates(),
		Mapping:      evidence.Mapping(b.behaviour.Mapping),
		Filtering:    evidence.Filtering(b.behaviour.Filtering),
		TCPFiltering: evidence.Filtering(b.behaviour.FilteringOf(middlebox.TCP)),
	}
}

// Rules are those of a box of a plan, whose interfaces have these names.
func Rules(plan *topo.Plan, b topo.Box, behaviour middlebox.Behaviour, wan, lan string) (*middlebox.Ruleset, error) {
	return scenario.Rules(plan, b, behaviour, wan, lan, LogGroup)
}

func (i *Internet) load(b *box) error {
	rules, err := Rules(i.Plan, b.Box, b.behaviour, "wan", "lan")
	if err != nil {
		return fmt.Errorf("middlebox %s: %w", b.Name, err)
	}
	if b.loader == nil {
		if b.loader, err = middlebox.NewLoader(i.network.Namespace(b.Name)); err != nil {
			return fmt.Errorf("middlebox %s: %w", b.Name, err)
		}
	}
	if err := b.loader.Load(rules); err != nil {
		return fmt.Errorf("middlebox %s: %w", b.Name, err)
	}
	return nil
}

// Change makes a box behave differently from now on. A box that translates
// goes on doing so where the new behaviour has no mapping of its own: its LAN
// keeps its addresses.
func (i *Internet) Change(name string, to middlebox.Behaviour, label string) error {
	b, ok := i.boxes[name]
	if !ok {
		return fmt.Errorf("change: unknown middlebox %q", name)
	}
	before := b.behaviour
	b.behaviour = before.ChangedTo(to)
	if err := i.load(b); err != nil {
		b.behaviour = before
		return err
	}
	i.changes = append(i.changes, change(time.Now(), b, label))
	return i.behave(b, before)
}

// Readdress gives a box new external addresses, as many as it has, and has it
// forget all flows, as a router does whose provider hands out a new lease.
func (i *Internet) Readdress(name string) error {
	b, ok := i.boxes[name]
	if !ok {
		return fmt.Errorf("readdress: unknown middlebox %q", name)
	}
	outside := b.Behind
	if outside == "" {
		outside = topo.InternetName
	}
	to, err := i.leases.Free(outside, len(b.WAN))
	if err != nil {
		return fmt.Errorf("readdress %s: %w", name, err)
	}
	slices.SortFunc(to, netip.Addr.Compare) // a pool of addresses is a range, upward
	plan, err := i.network.Readdress(i.Plan, name, to)
	if err != nil {
		return err
	}
	i.former[name] = append(i.former[name], b.WAN...)
	i.Plan = plan
	b.Box, _ = plan.Box(name)
	return i.Reset(name)
}

// Dropped is how many packets each of a box's rules has dropped since the rules
// were loaded.
func (i *Internet) Dropped(name string) (map[string]uint64, error) {
	counters, err := i.boxes[name].loader.Counters()
	if err != nil {
		return nil, fmt.Errorf("middlebox %s: %w", name, err)
	}
	dropped := map[string]uint64{}
	for rule, c := range counters {
		dropped[rule] = c.Packets
	}
	return dropped, nil
}

// Label names the boxes that a host is behind, innermost first, as results
// show them: "symmetric", "symmetric behind cgnat", "none".
func (i *Internet) Label(host string) string {
	label := ""
	for _, name := range i.Plan.Chain(host) {
		now := ""
		for _, c := range i.changes {
			if c.Box == name {
				now = c.Label
			}
		}
		if label != "" {
			label += " behind "
		}
		label += now
	}
	if label == "" {
		return "none"
	}
	return label
}

// World describes the internet to those who read the evidence; a box has all
// external addresses there that it ever had. roles gives the
// roles of the nodes on a host.
func (i *Internet) World(roles func(host string) []string) evidence.World {
	w := evidence.World{Behaviours: i.changes}
	for _, h := range i.Plan.Hosts {
		w.Hosts = append(w.Hosts, evidence.Host{Name: h.Name, Addresses: h.Addrs, Behind: h.Behind, Roles: roles(h.Name)})
	}
	for _, b := range i.Plan.Boxes {
		addrs := slices.Concat(b.WAN, i.former[b.Name])
		w.Boxes = append(w.Boxes, evidence.Box{Name: b.Name, Behind: b.Behind, WAN: addrs, LAN: b.LAN})
	}
	return w
}

// Namespace is that of a host or box, nil if there is none of that name.
func (i *Internet) Namespace(name string) *ns.Handle { return i.network.Namespace(name) }

// Interfaces are those at which a host's or box's packets are captured.
func (i *Internet) Interfaces(name string) []string { return i.network.Interfaces(name) }

// Missing says what this kernel lacks of what the topology asks for.
func (i *Internet) Missing() []string { return i.network.Missing() }

// Doubts says where links did what the topology doesn't ask for, up to now.
func (i *Internet) Doubts() []string { return i.network.Doubts() }

// Lose has the uplink of a host that the scenario says so of lose a share of its
// packets from now on, each way.
func (i *Internet) Lose(host string, share float64) error { return i.network.Lose(host, share) }

// Calm switches the delay, jitter and loss of all links off, or on again.
func (i *Internet) Calm(calm bool) error { return i.network.Calm(calm) }

// Names are those of all hosts, then of all boxes.
func (i *Internet) Names() []string {
	var names []string
	for _, h := range i.Plan.Hosts {
		names = append(names, h.Name)
	}
	for _, b := range i.Plan.Boxes {
		names = append(names, b.Name)
	}
	return names
}

// HostsFile is what /etc/hosts would hold: the first address of every host,
// and the inner address of every box.
func (i *Internet) HostsFile() string {
	text := "127.0.0.1 localhost\n"
	for _, h := range i.Plan.Hosts {
		text += fmt.Sprintf("%s %s\n", h.Addrs[0], h.Name)
	}
	for _, b := range i.Plan.Boxes {
		text += fmt.Sprintf("%s %s\n", b.LANAddr, b.Name)
	}
	return text
}

// Close gives the internet up.
func (i *Internet) Close() error {
	var closing errgroup.Group // each loader waits for the kernel, all at once
	for _, b := range i.boxes {
		closing.Go(func() error {
			err := b.stop()
			if b.loader != nil {
				err = errors.Join(err, b.loader.Close())
			}
			return err
		})
	}
	return errors.Join(closing.Wait(), i.network.Close())
}
