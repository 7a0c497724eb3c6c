package oracle

import (
	"net/netip"
	"slices"

	"gauntlet/middlebox"
	"gauntlet/middlebox/model"
)

// window is how many ports after the last seen an end tries that predicts.
const window = 4

// agent is an end that checks connectivity: requests to all candidates of the
// other end, answers to the source that was observed (RFC 8445 sections 7.2
// and 7.3).
type agent struct {
	*host
	local      netip.AddrPort
	external   netip.AddrPort // as a supernode saw it; not valid if none answered
	sequential bool           // the box gives the next port to the next destination
	candidates []netip.AddrPort
	works      []netip.AddrPort // from where own requests were answered
}

// message is a check's request or its answer.
type message struct {
	answer   bool
	to       netip.AddrPort // whom the request was sent to
	from, at *agent         // at is whom it is meant for
}

// talk is the checks between two ends in a world.
type talk struct {
	*world
	agents [2]*agent
	told   *story // nil where nobody reads it
	// disturbed says that other flows take ports between one turn and the next.
	disturbed bool
	others    uint16
}

// terms are what differs between one run of the checks and another.
type terms struct {
	options Options
	// private says that ends behind one box exchange the addresses that they
	// have there, too.
	private bool
	// unseen says that an end which no supernode answers gives them all the same.
	unseen bool
	// deaf are ends that take UDP to be blocked and ask no supernode.
	deaf [2]bool
}

// socketOf is a supernode's UDP socket.
func socketOf(h *host) netip.AddrPort { return netip.AddrPortFrom(h.addr, overlayPort) }

// clientSocket is an end's one UDP socket.
func clientSocket(h *host) netip.AddrPort { return netip.AddrPortFrom(h.addr, clientPort) }

// newTalk has both ends ask the supernodes for their addresses and exchange
// what they learned.
func newTalk(p Pair, t terms, told *story) (*talk, error) {
	w, err := newWorld(p, t.options)
	if err != nil {
		return nil, err
	}
	c := &talk{world: w, told: told}
	for i, h := range w.hosts {
		c.agents[i] = &agent{host: h, local: clientSocket(h)}
	}
	for i, a := range c.agents {
		if t.deaf[i] {
			told.line("%s takes UDP to be blocked, as its own supernode doesn't answer", a.name)
			continue
		}
		c.ask(a)
	}
	if t.options.Expired {
		told.line("all bindings expire; both ends ask the supernodes again before they give an address")
		for _, b := range w.boxes {
			b.forget()
		}
		for i, a := range c.agents {
			if !t.deaf[i] {
				c.ask(a)
			}
		}
	}
	if t.deaf[caller] || t.deaf[callee] {
		return c, nil // neither end checks anything then
	}
	_, near := p.shared()
	for i, a := range c.agents {
		other := c.agents[1-i]
		switch {
		case !other.external.IsValid():
		case t.options.Predict && other.sequential:
			for n := range uint16(window) {
				a.candidates = append(a.candidates, netip.AddrPortFrom(other.external.Addr(), other.external.Port()+1+n))
			}
		default:
			a.candidates = append(a.candidates, other.external)
		}
		if near && t.private && (other.external.IsValid() || t.unseen) && !slices.Contains(a.candidates, other.local) {
			a.candidates = append(a.candidates, other.local)
		}
	}
	return c, nil
}

// ask has an end ask two supernodes for its external address, the second to see
// what its box does for another destination (RFC 5780 section 4.3): the first two
// that answer, or the only one.
func (c *talk) ask(a *agent) {
	a.external = netip.AddrPort{}
	var seen []netip.AddrPort
	for n := 0; n < c.supernodes && len(seen) < 2; n++ {
		there, ok := c.asks(a.host, n)
		switch {
		case ok:
			seen = append(seen, there.packet.From)
		case there.at == nil:
			c.told.lost(a.host, c.supernode(n), there)
		default:
			c.told.line("the answers of %s don't reach %s", c.supernode(n).name, a.name)
		}
	}
	switch len(seen) {
	case 0:
		return
	case 1:
		seen = append(seen, seen[0])
	}
	a.external = seen[1]
	a.sequential = seen[0].Addr() == seen[1].Addr() && seen[1].Port() == seen[0].Port()+1
	switch {
	case a.external == a.local:
		c.told.line("supernodes see %s at its own address", a.name)
	case seen[0] == seen[1]:
		c.told.line("supernodes see %s at %v, whichever of them it asks", a.name, a.external)
	case a.sequential:
		c.told.line("supernodes see %s at another port each, the next one: %v, then %v", a.name, seen[0], seen[1])
	default:
		c.told.line("supernodes see %s at another place each: %v, %v", a.name, seen[0], seen[1])
	}
}

// flight is a check on its way: it has left the sender's boxes and is not yet
// at the receiver's.
type flight struct {
	message
	packet model.Packet
	over   *network
}

// turn has an end send a request to all candidates that it knows.
func (c *talk) turn(i int) []flight {
	a := c.agents[i]
	var out []flight
	for _, to := range slices.Clone(a.candidates) {
		if f, ok := c.leave(message{to: to, from: a, at: c.agents[1-i]}, to); ok {
			out = append(out, f)
		}
	}
	return out
}

// leave takes a message through the boxes on its sender's side, up to the
// network from where it goes inward.
func (c *talk) leave(m message, to netip.AddrPort) (flight, bool) {
	p, at := model.Packet{Protocol: middlebox.UDP, From: m.from.local, To: to}, m.from.at
	for at.behind != nil && !at.holds(to.Addr()) {
		b := at.behind
		fate := c.handle(b, model.Inside, p)
		if fate.Dropped != "" || fate.Local {
			c.told.check(m, to, arrival{packet: p, box: b, rule: fate.Dropped})
			return flight{}, false
		}
		p = fate.Packet
		if fate.To == model.Inside {
			break // it turned around in the box
		}
		at = b.outer
	}
	return flight{m, p, at}, true
}

// holds says whether a packet to an address stays in this network or goes
// inward from it.
func (n *network) holds(a netip.Addr) bool {
	return slices.ContainsFunc(n.hosts, func(h *host) bool { return h.addr == a }) ||
		slices.ContainsFunc(n.boxes, func(b *box) bool { return b.has(a) })
}

// arrive takes a message to its end, and has the receiver do what it does: a
// request is answered to its source, which is a new candidate if it wasn't
// known; an answer counts if it comes from where the request went to. It
// returns the answer as it leaves.
func (c *talk) arrive(f flight) (answer flight, ok bool) {
	end := c.carry(f.packet, f.over)
	from := end.packet.From
	if end.at != f.at.host || end.packet.To != f.at.local {
		c.told.check(f.message, f.packet.To, end)
		return flight{}, false
	}
	if f.answer {
		if from == f.to && !slices.Contains(f.at.works, from) {
			f.at.works = append(f.at.works, from)
			c.told.line("%s has its answer from %v: that pair works", f.at.name, from)
		}
		return flight{}, false
	}
	if !slices.Contains(f.at.candidates, from) {
		f.at.candidates = append(f.at.candidates, from)
		c.told.line("%s's check to %v reaches %s, from %v, which %s didn't know and checks from now on", f.from.name, f.to, f.at.name, from, f.at.name)
	} else {
		c.told.line("%s's check to %v reaches %s", f.from.name, f.to, f.at.name)
	}
	return c.leave(message{answer: true, to: f.to, from: f.at, at: f.from}, from)
}

// settled says whether both ends have found a pair that works.
func (c *talk) settled() bool { return len(c.agents[0].works) > 0 && len(c.agents[1].works) > 0 }

// around are the boxes in front of both ends that the pair they use leads
// outward and inward again, of those that work the one that has the fewest.
func (c *talk) around() (fewest []string) {
	for i, a := range c.agents {
		for n, to := range a.works {
			if passed := c.passed(a.host, to.Addr(), c.agents[1-i].host); i+n == 0 || len(passed) < len(fewest) {
				fewest = passed
			}
		}
	}
	return fewest
}

// passed are the boxes in front of two hosts that a packet from one to an
// address passes outward, the one that it turns around in among them.
func (w *world) passed(from *host, to netip.Addr, other *host) (boxes []string) {
	for at := from.at; at.behind != nil && !at.holds(to); at = at.behind.outer {
		if other.behind(at.behind) {
			boxes = append(boxes, at.behind.name)
		}
		if slices.Contains(at.behind.wan, to) {
			break
		}
	}
	return boxes
}

// behind says whether a box is in front of a host.
func (h *host) behind(b *box) bool {
	for at := h.at; at.behind != nil; at = at.behind.outer {
		if at.behind == b {
			return true
		}
	}
	return false
}

// play has the ends take turns in an order, every message arriving before the
// next leaves. together says that both ends' first requests are on their way at
// once.
func (c *talk) play(order []int, together bool) {
	if together {
		c.land(append(c.turn(0), c.turn(1)...))
	}
	for _, i := range order {
		if c.settled() {
			return
		}
		if c.disturbed {
			c.disturb()
		}
		c.land(c.turn(i))
	}
}

// disturb has both hosts send from another port to places that nobody has asked
// before, more often than a prediction looks ahead.
func (c *talk) disturb() {
	for range window + 1 {
		c.others++
		for _, h := range c.hosts {
			from := netip.AddrPortFrom(h.addr, clientPort+1)
			c.carry(model.Packet{Protocol: middlebox.UDP, From: from, To: netip.AddrPortFrom(firstSN, c.others)}, h.at)
		}
	}
}

func (c *talk) land(flights []flight) {
	for _, f := range flights {
		if answer, ok := c.arrive(f); ok {
			c.arrive(answer)
		}
	}
}
