package topo

import (
	"errors"
	"fmt"
	"slices"

	"gauntlet/topo/ns"
	"gauntlet/topo/pump"
)

// Network is a topology in the kernel: a namespace for each host and box, and
// one for the internet.
type Network struct {
	spaces  map[string]*ns.Handle
	taps    map[string][]string
	missing []string
	links   *links // nil if none has delay, jitter or loss
}

// Namespace returns the namespace of a host, of a box or of InternetName, nil
// if there is none of that name. It stays the network's, which closes it.
func (n *Network) Namespace(name string) *ns.Handle {
	return n.spaces[name]
}

// Interfaces returns the interfaces at which all packets of a host or box can
// be captured: eth0 of a host, wan and lan of a box, br0 of the internet. It
// returns nil for an unknown name.
func (n *Network) Interfaces(name string) []string {
	return slices.Clone(n.taps[name])
}

// Missing returns the rates that links ask for and that this kernel lacks tbf
// for, one sentence for each direction of a link, in the order of the plan. What
// a check measures over such a link is inconclusive.
func (n *Network) Missing() []string {
	return slices.Clone(n.missing)
}

// Calm switches the delay, jitter and loss of all links off, or on again as
// they are after Build; rates stay. It is for measurements that are of something
// else, such as of the boxes.
func (n *Network) Calm(calm bool) error {
	if n.links == nil {
		return nil
	}
	if err := n.links.calm(calm); err != nil {
		return fmt.Errorf("switch links: %w", err)
	}
	return nil
}

// Lose has the uplink of a host or box, whose link varies, lose a share of its
// packets from now on, each direction by itself; 0 ends it.
func (n *Network) Lose(name string, share float64) error {
	if n.links == nil || n.links.pump == nil {
		return fmt.Errorf("lose packets of %s: no link varies", name)
	}
	if err := n.links.lose(name, share); err != nil {
		return fmt.Errorf("lose packets of %s: %w", name, err)
	}
	return nil
}

// Links says what became of the frames of each link that the user-space pump
// serves, in the order of the plan.
func (n *Network) Links() ([]pump.Report, error) {
	if n.links == nil || n.links.pump == nil {
		return nil, nil
	}
	reports, err := n.links.pump.Report()
	if err != nil {
		return reports, fmt.Errorf("links: %w", err)
	}
	return reports, nil
}

// Doubts says, one sentence each, where links did what no link was asked to do:
// frames that the pump was too slow for or could not pass on, or its own end.
// What was measured over them is inconclusive.
func (n *Network) Doubts() (doubts []string) {
	reports, err := n.Links()
	if err != nil {
		doubts = append(doubts, err.Error())
	}
	for _, r := range reports {
		for _, lane := range []struct {
			name   string
			counts pump.Counts
		}{{"up", r.Up}, {"down", r.Down}} {
			if lost := lane.counts.Unread + lane.counts.Refused; lost > 0 {
				doubts = append(doubts, fmt.Sprintf("%s's uplink, %s: the lab itself lost %d frames.", r.Name, lane.name, lost))
			}
		}
	}
	return doubts
}

// Close gives all namespaces up. With the last process and socket in it, each
// vanishes, and its interfaces with it.
func (n *Network) Close() error {
	var errs []error
	if n.links != nil {
		if err := n.links.close(); err != nil {
			errs = append(errs, fmt.Errorf("close network: links: %w", err))
		}
	}
	for name, h := range n.spaces {
		if err := h.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close network: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
