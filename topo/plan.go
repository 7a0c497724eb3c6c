package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Plan is a topology with every address and route decided. It is a value:
// storing it as JSON and reading it back gives the same plan.
type Plan struct {
	Internet Internet `json:"internet"`
	Boxes    []Box    `json:"boxes"` // outermost first; in file order at equal depth
	Hosts    []Host   `json:"hosts"` // in file order
	// Seed decides which packets the links lose and how their delays vary.
	Seed uint64 `json:"seed,omitempty"`
}

// Internet is the router that joins all outermost boxes and public hosts.
type Internet struct {
	Prefix netip.Prefix `json:"prefix"`           // of the bridge
	Addr   netip.Addr   `json:"addr"`             // of the bridge: everyone's default gateway
	Routes []Route      `json:"routes,omitempty"` // to the LANs of firewalls
}

// Box is one middlebox.
type Box struct {
	Name       string       `json:"name"`
	Behind     string       `json:"behind,omitempty"` // "" on the internet
	Translates bool         `json:"translates"`
	Port       string       `json:"port"`             // the interface it is attached to, in the namespace outside
	WAN        []netip.Addr `json:"wan"`              // the first is the primary address
	WANBits    int          `json:"wan_bits"`         // prefix length of the WAN addresses
	Gateway    netip.Addr   `json:"gateway"`          // default gateway, on the WAN
	LAN        netip.Prefix `json:"lan"`              // prefix inside
	LANAddr    netip.Addr   `json:"lan_addr"`         // the box's own address inside
	Routes     []Route      `json:"routes,omitempty"` // to the LANs of firewalls behind it
	Link       Link         `json:"link,omitzero"`
}

// Routed are the LANs of the firewalls behind the box: addresses in them reach
// it as they are.
func (b Box) Routed() (networks []netip.Prefix) {
	for _, r := range b.Routes {
		networks = append(networks, r.To)
	}
	return networks
}

// Host is one host.
type Host struct {
	Name    string       `json:"name"`
	Behind  string       `json:"behind,omitempty"` // "" on the internet
	Port    string       `json:"port"`             // the interface it is attached to, in the namespace outside
	Addrs   []netip.Addr `json:"addrs"`            // the first is the primary address
	Bits    int          `json:"bits"`             // prefix length of the addresses
	Gateway netip.Addr   `json:"gateway"`
	Link    Link         `json:"link,omitzero"`
}

// Route says that a prefix is reached through an address on the LAN.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"`
}

// NewPlan decides all addresses and routes. The same description always gives
// the same plan. If Check finds problems, the error joins them all.
func NewPlan(d Description) (*Plan, error) {
	problems := checkStructure(d)
	var plan *Plan
	if len(problems) == 0 {
		plan, problems = assign(d)
	}
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = fmt.Errorf("%s: %s", strings.Join(p.Path, "."), p.Message)
		}
		return nil, fmt.Errorf("plan topology: %w", errors.Join(errs...))
	}
	return plan, nil
}

// Host returns the host of that name.
func (p *Plan) Host(name string) (Host, bool) {
	for _, h := range p.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// Box returns the box of that name.
func (p *Plan) Box(name string) (Box, bool) {
	for _, b := range p.Boxes {
		if b.Name == name {
			return b, true
		}
	}
	return Box{}, false
}

// directlyBehind returns the boxes on the LAN of a box. It is empty for the
// internet, where nobody has neighbours but the router.
func (p *Plan) directlyBehind(box string) (inner []Box) {
	for _, b := range p.Boxes {
		if b.Behind == box && box != "" {
			inner = append(inner, b)
		}
	}
	return inner
}

// Chain returns the names of the boxes between a host and the internet, from
// the host outward. It is empty for a host on the internet, and for an unknown
// one.
func (p *Plan) Chain(host string) []string {
	h, ok := p.Host(host)
	if !ok {
		return nil
	}
	var chain []string
	for name := h.Behind; name != ""; {
		b, ok := p.Box(name)
		if !ok || len(chain) > len(p.Boxes) {
			return chain // not a plan that NewPlan made
		}
		chain = append(chain, name)
		name = b.Behind
	}
	return chain
}
