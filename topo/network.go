package topo

import (
	"errors"
	"fmt"
	"slices"

	"gauntlet/topo/ns"
)

// Network is a topology in the kernel: a namespace for each host and box, and
// one for the internet.
type Network struct {
	spaces  map[string]*ns.Handle
	taps    map[string][]string
	missing []string
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

// Missing returns what links ask for and this kernel lacks, one sentence for
// each direction of a link, in the order of the plan. What a check measures
// over such a link is inconclusive.
func (n *Network) Missing() []string {
	return slices.Clone(n.missing)
}

// Close gives all namespaces up. With the last process and socket in it, each
// vanishes, and its interfaces with it.
func (n *Network) Close() error {
	var errs []error
	for name, h := range n.spaces {
		if err := h.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close network: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
