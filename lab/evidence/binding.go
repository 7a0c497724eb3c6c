package evidence

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Binding is what a host has sent to one destination from one of its own
// endpoints, as a box on its way translated it.
type Binding struct {
	Host  string
	Local netip.AddrPort // the endpoint, as the host sees it
	// Outside is the endpoint's on the box's outer side, its own where the box
	// doesn't translate; Peer is the destination there.
	Outside, Peer netip.AddrPort
	// Since is when the host first sent to Peer.
	Since time.Time
}

// outer is an endpoint on the outer side of a box.
type outer struct {
	box, transport string
	endpoint       netip.AddrPort
}

// bind notes what a packet that a host sent made in each box that it passed.
func (j *joiner) bind(v view, r route, at time.Time) {
	for _, s := range r.steps {
		key := outer{s.box, v.transport, s.outer.Src}
		b := Binding{Host: v.place, Local: v.tuple.Src, Outside: s.outer.Src, Peer: s.outer.Dst, Since: at}
		list := j.bindings[key]
		known := false
		for n := range list {
			if o := &list[n]; o.Host == b.Host && o.Local == b.Local && o.Peer == b.Peer {
				known = true
				if at.Before(o.Since) {
					o.Since = at
				}
				break
			}
		}
		if !known {
			j.bindings[key] = append(list, b)
		}
	}
}

// Bindings are those at an endpoint on a box's outer side: one for each
// destination that was sent to from there.
func (ev *Evidence) Bindings(box, transport string, outside netip.AddrPort) []Binding {
	return ev.bindings[outer{box, transport, outside}]
}

// Towards are the bindings of a host's endpoint at a box, whatever the endpoint
// is outside, towards a destination.
func (ev *Evidence) Towards(box, transport, host string, local, peer netip.AddrPort) (all []Binding) {
	for key, list := range ev.bindings {
		if key.box != box || key.transport != transport {
			continue
		}
		for _, b := range list {
			if b.Host == host && b.Local == local && b.Peer == peer {
				all = append(all, b)
			}
		}
	}
	slices.SortFunc(all, func(a, b Binding) int { return cmp.Or(a.Since.Compare(b.Since), a.Outside.Compare(b.Outside)) })
	return all
}
