package evidence

import (
	"net/netip"
	"slices"
	"time"
)

// creation is how much later than a packet left its host the box may have made
// the packet's conntrack entry: transit and queues between the two. It matters
// only where one inner tuple had several mappings, one after the other.
const creation = 100 * time.Millisecond

// translations are a router's two views of its connections, of all dumps.
type translations map[innerTuple][]mapping

type innerTuple struct {
	transport string
	tuple     Tuple
}

// mapping is what lies outside for an inner tuple, from a time on.
type mapping struct {
	outside Tuple
	started time.Time
	asked   bool   // for, by a host inside: a port mapping
	left    uint64 // packets that it translated outward
}

// add records an entry. Whichever side made the entry, one of its tuples is
// the inner one as a packet outward has it: the original if a packet outward
// was first, else the reply. The outside is the other, mirrored.
func (t translations) add(e Entry) {
	t.put(e.Transport, e.Original, mapping{e.Reply.Reverse(), e.Started, e.Mapped, e.OriginalPackets})
	t.put(e.Transport, e.Reply, mapping{e.Original.Reverse(), e.Started, e.Mapped, e.ReplyPackets})
}

func (t translations) put(transport string, inner Tuple, m mapping) {
	key := innerTuple{transport, inner}
	for i, o := range t[key] {
		if o.outside == m.outside && o.started.Equal(m.started) {
			t[key][i].left = max(o.left, m.left)
			return
		}
	}
	t[key] = append(t[key], m)
	slices.SortStableFunc(t[key], func(a, b mapping) int { return a.started.Compare(b.started) })
}

// outside returns what lies outside for a packet outward that has the inner
// tuple at a time. ok is false if no entry says it, or entries contradict each
// other and have no times.
//
// A box that maps each destination by itself and filters nobody has two entries of
// one inner tuple at once when somebody sends to a mapping that was made for others:
// that one lets packets in, and the other is what all leave by.
func (t translations) outside(transport string, inner Tuple, at time.Time) (outer mapping, ok bool) {
	found := t[innerTuple{transport, inner}]
	if len(found) == 0 {
		return mapping{}, false
	}
	left := func(m mapping) bool { return m.left > 0 }
	if slices.ContainsFunc(found, left) {
		found = slices.DeleteFunc(slices.Clone(found), func(m mapping) bool { return !left(m) })
	}
	chosen := found[0]
	for _, m := range found[1:] {
		if m.outside != chosen.outside && (m.started.IsZero() || chosen.started.IsZero()) {
			return mapping{}, false
		}
		if !m.started.After(at.Add(creation)) {
			chosen = m
		}
	}
	return chosen, true
}

// step is a box on a flow's way outward: the tuple of a packet outward on its
// inner and on its outer side.
type step struct {
	box          string
	inner, outer Tuple
	asked        bool // the translation is a port mapping
}

// route is where a tuple leads from its host outward.
type route struct {
	steps []step
	// tuple is a packet outward's at the end, in the realm there: "" for the
	// internet, else the box behind which both ends stand.
	tuple Tuple
	realm string
	// stuck is the box that no entry led through, "" for none. The inner tuple
	// there is tuple.
	stuck string
}

// outward follows a tuple from a host or box outward. tuple is that of a packet
// outward, as the origin sees it.
func (j *joiner) outward(origin, transport string, tuple Tuple, at time.Time) route {
	r := route{tuple: tuple}
	for _, box := range j.chain(origin) {
		if j.holds(box, r.tuple.Dst.Addr()) {
			r.realm = box
			return r
		}
		s := step{box: box, inner: r.tuple, outer: r.tuple}
		if j.world.Behaviour(box, at).Translates {
			outer, ok := j.tables[box].outside(transport, r.tuple, at)
			if !ok {
				r.realm, r.stuck = box, box
				return r
			}
			s.outer, s.asked = outer.outside, outer.asked
			if s.outer.Dst != r.tuple.Dst && j.inside(box, s.outer.Dst.Addr()) {
				// A hairpin: the box turns the packet back to its inner side and
				// translates both ends (RFC 4787 REQ-9). Where the two meet is
				// its outer side, as if the packet had been there: from the
				// address that it gave the sender to the one that was sent to.
				s.outer.Dst = r.tuple.Dst
			}
		}
		r.steps = append(r.steps, s)
		r.tuple = s.outer
	}
	return r
}

// chain is World.Chain, remembered.
func (j *joiner) chain(name string) []string {
	c, ok := j.chains[name]
	if !ok {
		c = j.world.Chain(name)
		j.chains[name] = c
	}
	return c
}

// holds says whether the address is that of a host or of a box's outer side
// behind the box.
func (j *joiner) holds(box string, address netip.Addr) bool {
	for _, owner := range j.owners[address] {
		if slices.Contains(j.chain(owner), box) {
			return true
		}
	}
	return false
}

// toward returns the hosts that a packet to an address may have been meant
// for: the host that has it, or those behind the box that has it.
func (j *joiner) toward(address netip.Addr) []string {
	var hosts []string
	for _, owner := range j.owners[address] {
		if j.world.Host(owner) != nil {
			hosts = append(hosts, owner)
		} else {
			hosts = append(hosts, j.world.HostsBehind(owner)...)
		}
	}
	return hosts
}
