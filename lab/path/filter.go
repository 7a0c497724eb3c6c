package path

import (
	"fmt"
	"slices"
	"time"

	"gauntlet/lab/evidence"
)

// free says whether no box on a host's side filters what the peer sends, as
// the boxes behaved when the window began. The boxes that filter are named
// with their filtering. Behind a box that translates no end is free towards TCP,
// whatever the box lets in, since one who waits for connections has no binding
// to be reached by. A port mapping for all flows that carry makes a box one that
// doesn't filter them. A box that changed within the exchange makes the finding
// inconclusive.
func (f *finder) free(host, peer string, legs []*evidence.Flow) (free bool, filtering []string) {
	transport := legs[0].Transport
	for _, box := range f.ev.World.SideOf(legs[0], host, peer) {
		b := f.ev.World.Behaviour(box, f.ex.From)
		for _, c := range f.ev.World.Behaviours {
			if c.Box == box && c.Time.After(f.ex.From) && !c.Time.After(f.ex.To) {
				f.doubt("%s changed during the exchange", box)
			}
		}
		filter := b.FilteringOf(transport)
		unbound := b.Translates && transport == evidence.TCP
		switch {
		case (filter.Filters() || unbound) && mapped(legs, box):
			f.note("%s has a port mapping for %s", box, host)
		case filter.Filters():
			filtering = append(filtering, fmt.Sprintf("%s filters (%s)", box, filter))
		case unbound:
			filtering = append(filtering, fmt.Sprintf("%s has no TCP binding for who waits there", box))
		}
	}
	return len(filtering) == 0, filtering
}

// mapped says whether a box has port mappings for all flows.
func mapped(flows []*evidence.Flow, box string) bool {
	return len(flows) > 0 && !slices.ContainsFunc(flows, func(flow *evidence.Flow) bool { return !flow.Mapped(box) })
}

// checkFilters checks on both sides of a carrying flow that each filtering box
// let in only what the own host had asked for.
func (f *finder) checkFilters(flow *evidence.Flow) {
	for _, side := range [][2]evidence.Endpoint{{flow.A, flow.B}, {flow.B, flow.A}} {
		own, peer := side[0], side[1]
		for _, box := range f.ev.World.SideOf(flow, own.Host, peer.Host) {
			in, out := f.crossed(flow, box, own.Host)
			if in.IsZero() {
				continue
			}
			filter := f.ev.World.Behaviour(box, in).FilteringOf(flow.Transport)
			if !filter.Filters() || flow.Mapped(box) {
				if out.IsZero() || in.Before(out) {
					f.note("%s let in the first packet of %s unasked, as it may", box, peer.Host)
				}
				continue
			}
			asked := out
			if filter == evidence.AddressDependent {
				asked = f.asked(flow, box, own, peer)
			}
			if asked.IsZero() || in.Before(asked) {
				f.doubt("%s filters (%s) and yet let in a packet of %s to %s that was not asked for",
					box, filter, peer.Host, own.Host)
				continue
			}
			f.note("%s let %s in %s after %s sent outward", box, peer.Host,
				in.Sub(asked).Round(time.Microsecond), own.Host)
		}
	}
}

// crossed returns when the first packets of a flow passed a box inward and
// outward: at the box's inner interface, or where that was not captured or is
// the other end's too, at the host.
func (f *finder) crossed(flow *evidence.Flow, box, host string) (in, out time.Time) {
	in, out, ok := flow.Crossed(box)
	if !ok || slices.Contains(f.ev.World.Chain(flow.Peer(host)), box) {
		return flow.Into(host).FirstReceived, flow.OutOf(host).FirstSent
	}
	return in, out
}

// asked returns when the host first sent a packet from the same own address
// and port through the box to the peer's address, whatever the port there: the
// filter is one of each internal endpoint, RFC 4787 section 5.
func (f *finder) asked(flow *evidence.Flow, box string, own, peer evidence.Endpoint) time.Time {
	var first time.Time
	for _, other := range f.ev.All() {
		mine, ok := other.End(own.Host)
		if !ok || other.Transport != flow.Transport || mine.Local != own.Local {
			continue
		}
		theirs := other.A
		if theirs == mine {
			theirs = other.B
		}
		if theirs.Seen.Addr() != peer.Seen.Addr() {
			continue
		}
		if _, out := f.crossed(other, box, own.Host); !out.IsZero() && (first.IsZero() || out.Before(first)) {
			first = out
		}
	}
	return first
}
