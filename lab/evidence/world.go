package evidence

import (
	"net/netip"
	"slices"
	"time"
)

// World says who stood where: the hosts, the boxes between them, and how each
// box behaved from when on.
type World struct {
	Hosts      []Host   `json:"hosts"`
	Boxes      []Box    `json:"boxes"`
	Behaviours []Change `json:"behaviours"`
}

// Host is a machine with nodes on it.
type Host struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	// Behind is the box that the host's uplink goes to, "" on the internet.
	Behind string `json:"behind,omitempty"`
	// Roles are the node roles on the host, such as "supernode".
	Roles []string `json:"roles,omitempty"`
}

// Box is a router between a LAN and what lies outside.
type Box struct {
	Name string `json:"name"`
	// Behind is the box outside this one, "" where that is the internet.
	Behind string       `json:"behind,omitempty"`
	WAN    []netip.Addr `json:"wan"`
	LAN    netip.Prefix `json:"lan"`
}

// Change is a box's behaviour from Time on. The behaviour a box starts with
// has the zero time.
type Change struct {
	Time time.Time `json:"time"`
	Box  string    `json:"box"`
	// Translates says whether the box maps addresses.
	Translates bool `json:"translates"`
	// Mapping is the box's mapping in the words of RFC 4787 section 4.1, "" if
	// it doesn't translate.
	Mapping Mapping `json:"mapping,omitempty"`
	// Filtering is the box's filtering in the words of RFC 4787 section 5.
	Filtering Filtering `json:"filtering,omitempty"`
	// TCPFiltering is the same for TCP, RFC 5382 section 4.3. A box may let in
	// datagrams and no connections.
	TCPFiltering Filtering `json:"tcp_filtering,omitempty"`
	// Label names the behaviour for people, such as a preset's name.
	Label string `json:"label,omitempty"`
}

// FilteringOf is the box's filtering of a transport. A recording that says
// nothing of TCP's is of a box that filters it as UDP.
func (c Change) FilteringOf(transport string) Filtering {
	if transport == TCP && c.TCPFiltering != NoFiltering {
		return c.TCPFiltering
	}
	return c.Filtering
}

// Mapping is a mapping behaviour, RFC 4787 section 4.1: endpoint-independent,
// address-dependent or address-and-port-dependent.
type Mapping string

// Filtering is a filtering behaviour, RFC 4787 section 5.
type Filtering string

// The filtering behaviours. The empty one means that the box has no filter and
// is the same as endpoint-independent.
const (
	NoFiltering             Filtering = ""
	EndpointIndependent     Filtering = "endpoint-independent"
	AddressDependent        Filtering = "address-dependent"
	AddressAndPortDependent Filtering = "address-and-port-dependent"
)

// Filters says whether it matters who sends a packet inward.
func (f Filtering) Filters() bool { return f != NoFiltering && f != EndpointIndependent }

// Host returns the host of that name, nil if there is none.
func (w *World) Host(name string) *Host {
	i := slices.IndexFunc(w.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return &w.Hosts[i]
}

// Box returns the box of that name, nil if there is none.
func (w *World) Box(name string) *Box {
	i := slices.IndexFunc(w.Boxes, func(b Box) bool { return b.Name == name })
	if i < 0 {
		return nil
	}
	return &w.Boxes[i]
}

// Chain returns the boxes from the named host or box outward, innermost first.
// A box is not part of its own chain.
func (w *World) Chain(name string) []string {
	behind := ""
	if h := w.Host(name); h != nil {
		behind = h.Behind
	} else if b := w.Box(name); b != nil {
		behind = b.Behind
	}
	var chain []string
	for behind != "" && len(chain) <= len(w.Boxes) {
		chain = append(chain, behind)
		b := w.Box(behind)
		if b == nil {
			break
		}
		behind = b.Behind
	}
	return chain
}

// Side returns the boxes on one host's side of the way to another, innermost
// first: its chain without the boxes that both stand behind.
func (w *World) Side(host, peer string) []string {
	other := w.Chain(peer)
	var side []string
	for _, box := range w.Chain(host) {
		if slices.Contains(other, box) {
			break
		}
		side = append(side, box)
	}
	return side
}

// SideOf is Side for one flow. One that turns around in a box in front of both ends
// (hairpin, RFC 4787 REQ-9) leaves that box, and all that is inside it, outward and
// comes in again as any other: these are on each end's side although both stand
// behind them.
func (w *World) SideOf(f *Flow, host, peer string) []string {
	side, chain := w.Side(host, peer), w.Chain(host)
	if f.instance == nil {
		return side
	}
	met := len(chain)
	if i := slices.Index(chain, f.instance.key.realm); i >= 0 {
		met = i
	}
	if met > len(side) {
		return chain[:met]
	}
	return side
}

// Behaviour returns how a box behaved at a time. A box without any record
// neither translates nor filters.
func (w *World) Behaviour(box string, at time.Time) Change {
	found := Change{Box: box}
	for _, c := range w.Behaviours {
		if c.Box == box && !c.Time.After(at) && !c.Time.Before(found.Time) {
			found = c
		}
	}
	return found
}

// Is says whether the host has that name or that role.
func (h *Host) Is(nameOrRole string) bool {
	return h.Name == nameOrRole || slices.Contains(h.Roles, nameOrRole)
}

// HostsBehind returns the names of all hosts whose chain holds the box, in the
// order of the world.
func (w *World) HostsBehind(box string) []string {
	var names []string
	for _, h := range w.Hosts {
		if slices.Contains(w.Chain(h.Name), box) {
			names = append(names, h.Name)
		}
	}
	return names
}
