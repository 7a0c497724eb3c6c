package evidencetest

import (
	"net/netip"
	"slices"

	"gauntlet/lab/evidence"
)

// transit sends a packet from a host through the world. It returns the host
// that it reached, "" if none, and the tuple that it had there.
func (r *Recording) transit(from string, p evidence.Packet) (host string, as evidence.Tuple) {
	r.t.Helper()
	if r.World.Host(from) == nil {
		r.t.Fatalf("no host %q", from)
	}
	next := r.Now.Add(Step)
	defer func() { r.Now = next }()
	see := func(tap string) {
		r.see(tap, p)
		r.Now = r.Now.Add(Transit)
	}
	see(from + "/eth0")
	realm := ""
	for _, box := range r.World.Chain(from) {
		if r.holds(box, p.Tuple.Dst.Addr()) {
			realm = box
			break
		}
		see(box + "/lan")
		if r.Block[box] == p.Transport {
			r.drop(box, "block-"+p.Transport, p)
			return "", p.Tuple
		}
		if slices.Contains(r.World.Box(box).WAN, p.Tuple.Dst.Addr()) {
			turned, ok := r.hairpin(box, p)
			if !ok {
				r.drop(box, "hairpin", p)
				return "", p.Tuple
			}
			p.Tuple, realm = turned, box
			see(box + "/lan")
			break
		}
		p.Tuple = r.outward(box, p).outer
		see(box + "/wan")
	}
	for {
		owner := r.owner(p.Tuple.Dst.Addr())
		if owner == "" {
			return "", p.Tuple
		}
		inward := r.World.Chain(owner)
		if i := slices.Index(inward, realm); i >= 0 {
			inward = inward[:i]
		}
		slices.Reverse(inward)
		if r.World.Host(owner) == nil {
			inward = append(inward, owner)
		}
		for _, box := range inward {
			see(box + "/wan")
			local, rule := r.admit(box, p)
			if rule != "" {
				r.drop(box, rule, p)
				return "", p.Tuple
			}
			p.Tuple.Dst = local
			see(box + "/lan")
			realm = box
		}
		if r.World.Host(owner) != nil {
			see(owner + "/eth0")
			return owner, p.Tuple
		}
	}
}

// outward returns the entry of a packet outward at a box; it makes one if there
// is none.
func (r *Recording) outward(box string, p evidence.Packet) *entry {
	for _, e := range r.entries {
		if !e.expired && !e.hairpin && e.box == box && e.transport == p.Transport && e.inner == p.Tuple {
			return e
		}
	}
	e := &entry{box: box, transport: p.Transport, inner: p.Tuple, outer: p.Tuple, started: r.Now}
	if r.World.Behaviour(box, r.Now).Translates {
		port := p.Tuple.Src.Port()
		if r.Symmetric[box] {
			port = r.nextPort
			r.nextPort++
		}
		e.outer.Src = netip.AddrPortFrom(r.World.Box(box).WAN[0], port)
	}
	r.entries = append(r.entries, e)
	return e
}

// hairpin returns the tuple of a packet from inside to the box's own address as
// the box sends it back inside, with the sender's external endpoint as source
// (RFC 4787 REQ-9). ok is false if the box doesn't do so, or nobody has the
// address.
func (r *Recording) hairpin(box string, p evidence.Packet) (turned evidence.Tuple, ok bool) {
	own := p.Tuple.Src
	external := netip.AddrPortFrom(r.World.Box(box).WAN[0], own.Port())
	var to netip.AddrPort
	for _, e := range r.entries {
		switch {
		case !r.Hairpin[box] || e.expired || e.box != box || e.transport != p.Transport:
		case e.hairpin && e.inner == p.Tuple:
			return e.outer, true
		case e.hairpin && e.outer.Reverse() == p.Tuple:
			return e.inner.Reverse(), true
		case e.hairpin:
		case e.outer.Src == p.Tuple.Dst:
			to = e.inner.Src
		case e.inner.Src == own && !r.Symmetric[box]:
			external = e.outer.Src
		}
	}
	if !to.IsValid() {
		return turned, false
	}
	if r.Symmetric[box] {
		external = netip.AddrPortFrom(external.Addr(), r.nextPort)
		r.nextPort++
	}
	turned = evidence.Tuple{Src: external, Dst: to}
	r.entries = append(r.entries, &entry{
		box: box, transport: p.Transport, hairpin: true, started: r.Now, inner: p.Tuple, outer: turned,
	})
	return turned, true
}

// admit returns where a packet inward goes behind the box, or the rule that
// stops it.
func (r *Recording) admit(box string, p evidence.Packet) (local netip.AddrPort, rule string) {
	if r.Block[box] == p.Transport {
		return local, "block-" + p.Transport
	}
	b := r.World.Behaviour(box, r.Now)
	peer, own := p.Tuple.Src, p.Tuple.Dst
	open := r.Leaky[box] || !b.Filtering.Filters()
	known := !b.Translates
	local = own
	allowed := known && open
	for _, e := range r.entries {
		if e.expired || e.hairpin || e.box != box || e.transport != p.Transport || e.outer.Src != own {
			continue
		}
		if e.outer.Dst == peer {
			return e.inner.Src, ""
		}
		if open || b.Filtering == evidence.AddressDependent && e.outer.Dst.Addr() == peer.Addr() {
			local, allowed = e.inner.Src, true
		}
	}
	if !allowed {
		return local, "unsolicited"
	}
	r.entries = append(r.entries, &entry{
		box: box, transport: p.Transport, inbound: true, started: r.Now,
		inner: evidence.Tuple{Src: local, Dst: peer}, outer: evidence.Tuple{Src: own, Dst: peer},
	})
	return local, ""
}

// holds says whether an address is behind a box.
func (r *Recording) holds(box string, address netip.Addr) bool {
	owner := r.owner(address)
	return owner != "" && slices.Contains(r.World.Chain(owner), box)
}

// owner is the host or the box that has an address.
func (r *Recording) owner(address netip.Addr) string {
	for _, h := range r.World.Hosts {
		if slices.Contains(h.Addresses, address) {
			return h.Name
		}
	}
	for _, b := range r.World.Boxes {
		if slices.Contains(b.WAN, address) {
			return b.Name
		}
	}
	return ""
}

func (r *Recording) see(tap string, p evidence.Packet) {
	if r.Blind[tap] {
		return
	}
	i := slices.Index(r.taps, tap)
	if i < 0 {
		i = len(r.taps)
		r.taps = append(r.taps, tap)
	}
	r.packets = append(r.packets, tapped{tap: i, at: r.Now, frame: Frame(p)})
}

func (r *Recording) drop(box, rule string, p evidence.Packet) {
	r.drops = append(r.drops, evidence.DroppedPacket{
		Time: r.Now, Router: box, Rule: rule, Packet: Frame(p)[etherHeader:],
	})
}
