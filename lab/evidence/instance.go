package evidence

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// flowKey identifies a flow where the two ends' views meet. low is the smaller
// of the two addresses there.
type flowKey struct {
	transport string
	realm     string
	stuck     string
	low, high netip.AddrPort
}

// instance is one flow: all of a UDP flow, one connection of TCP.
type instance struct {
	key     flowKey
	ends    [2]Endpoint // low, high
	first   int         // the end that sent the first packet
	toward  []string
	packets []packet // sorted by time
	drops   []Drop
	opened  time.Time
	closed  time.Time
	crossed map[string]crossing
	mapped  map[string]bool
	syns    []uint32
}

// packet is an event of a flow.
type packet struct {
	event
	// from is the end that sent it; arrived says whether it was seen at the
	// receiver's host or, if not, at the sender's.
	from    int
	arrived bool
}

// placed says which flow a tuple at a place belongs to, and which end is on
// the inner side.
type placed struct {
	key flowKey
	end int
}

// instances joins all views and returns the flows by the time of their first
// packets.
func (j *joiner) instances() []*instance {
	packets := map[flowKey][]packet{}
	ends := map[flowKey][2]Endpoint{}
	for _, v := range sortedViews(j.hosts) {
		var known route
		var key flowKey
		end, fixed := 0, false
		for _, e := range j.hosts[v] {
			if !fixed {
				known = j.outward(v.place, v.transport, v.tuple, moment(e.at))
				key, end = keyOf(v.transport, known)
				fixed = j.steady(v, known)
				j.register(v, known, key, end)
				both := ends[key]
				both[end] = Endpoint{Host: v.place, Local: v.tuple.Src}
				ends[key] = both
			}
			p := packet{event: e, from: end}
			if e.outward {
				j.bind(v, known, moment(e.at))
			} else {
				p.from, p.arrived = 1-end, true
			}
			packets[key] = append(packets[key], p)
		}
	}
	var all []*instance
	for key, list := range packets {
		slices.SortStableFunc(list, func(a, b packet) int {
			// A packet leaves before it arrives, should the clock not tell.
			return cmp.Or(cmp.Compare(a.at, b.at), compareBool(a.arrived, b.arrived))
		})
		j.flows[key] = j.split(key, ends[key], list)
		all = append(all, j.flows[key]...)
	}
	slices.SortFunc(all, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.packets[0].at, b.packets[0].at), compareKeys(a.key, b.key))
	})
	j.cross()
	return all
}

// steady says whether a view leads the same way at all times.
func (j *joiner) steady(v view, r route) bool {
	check := func(box string, inner Tuple) bool {
		changes := 0
		for _, c := range j.world.Behaviours {
			if c.Box == box {
				changes++
			}
		}
		return changes <= 1 && len(j.tables[box][innerTuple{v.transport, inner}]) <= 1
	}
	for _, s := range r.steps {
		if !check(s.box, s.inner) {
			return false
		}
	}
	return r.stuck == "" || check(r.stuck, r.tuple)
}

// register notes the tuples that a flow has on both sides of each box.
func (j *joiner) register(v view, r route, key flowKey, end int) {
	note := func(box string, t Tuple) {
		at := view{box, v.transport, t}
		if p := (placed{key, end}); !slices.Contains(j.places[at], p) {
			j.places[at] = append(j.places[at], p)
		}
	}
	for _, s := range r.steps {
		if s.asked {
			if j.mapped[key] == nil {
				j.mapped[key] = map[string]bool{}
			}
			j.mapped[key][s.box] = true
		}
		note(s.box, s.inner)
		if s.outer != s.inner {
			note(s.box, s.outer)
		}
	}
	if r.stuck != "" {
		note(r.stuck, r.tuple)
	}
}

// keyOf names the flow that a route leads to, and the end it comes from.
func keyOf(transport string, r route) (key flowKey, end int) {
	key = flowKey{transport: transport, realm: r.realm, stuck: r.stuck, low: r.tuple.Src, high: r.tuple.Dst}
	if key.low.Compare(key.high) > 0 {
		key.low, key.high = key.high, key.low
		end = 1
	}
	return key, end
}

// split makes the instances of one flow. A TCP flow begins anew with a SYN of
// another sequence number after the connection was closed.
func (j *joiner) split(key flowKey, ends [2]Endpoint, list []packet) []*instance {
	var made []*instance
	var now *instance
	for _, p := range list {
		if now == nil || now.closedBefore(p) {
			now = &instance{key: key, ends: ends, first: p.from, crossed: map[string]crossing{}, mapped: j.mapped[key]}
			made = append(made, now)
		}
		now.add(p)
	}
	for _, i := range made {
		i.finish(j)
	}
	return made
}

func (i *instance) closedBefore(p packet) bool {
	return i.key.transport == TCP && p.flags&(SYN|ACK) == SYN && !i.closed.IsZero() && !slices.Contains(i.syns, p.seq)
}

func (i *instance) add(p packet) {
	if i.key.transport == TCP {
		switch {
		case p.flags&(SYN|ACK) == SYN:
			i.syns = append(i.syns, p.seq)
		case p.flags&(SYN|ACK) == SYN|ACK && i.opened.IsZero() && (p.arrived || i.ends[1-p.from].Host == ""):
			i.opened = moment(p.at)
		}
		if p.flags&(FIN|RST) != 0 && i.closed.IsZero() {
			i.closed = moment(p.at)
		}
	}
	i.packets = append(i.packets, p)
}

// finish sets what depends on all packets: the addresses seen, the hosts meant,
// and the bytes that were sent again.
func (i *instance) finish(j *joiner) {
	seen := [2]netip.AddrPort{i.key.low, i.key.high}
	for end := range i.ends {
		if i.key.stuck == "" || i.ends[end].Host == "" {
			i.ends[end].Seen = seen[end]
		}
	}
	other := 1 - i.first
	if host := i.ends[other].Host; host != "" {
		i.toward = []string{host}
	} else {
		i.toward = j.toward(seen[other].Addr())
	}
	if i.key.transport == TCP {
		countOnce(i.packets)
	}
}

// cross notes when each flow first passed the inner side of each box.
func (j *joiner) cross() {
	for v, events := range j.boxes {
		for _, e := range events {
			i, _ := j.find(j.places[v], moment(e.at))
			if i == nil {
				continue
			}
			c := i.crossed[v.place]
			at := &c.in
			if e.outward {
				at = &c.out
			}
			if when := moment(e.at); at.IsZero() || when.Before(*at) {
				*at = when
			}
			i.crossed[v.place] = c
		}
	}
}

// find returns the flow among several that a packet at a box belongs to: the
// last that had begun by then, since a packet leaves its host before it comes
// to a box. end is that on the box's inner side.
func (j *joiner) find(among []placed, at time.Time) (found *instance, end int) {
	for _, p := range among {
		for _, i := range j.flows[p.key] {
			begun := i.packets[0].at <= at.UnixNano()
			if found == nil || begun && i.packets[0].at > found.packets[0].at {
				found, end = i, p.end
			}
		}
	}
	return found, end
}

func sortedViews(views map[view][]event) []view {
	return slices.SortedFunc(maps.Keys(views), func(a, b view) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.transport, b.transport),
			a.tuple.Src.Compare(b.tuple.Src), a.tuple.Dst.Compare(b.tuple.Dst))
	})
}

func compareKeys(a, b flowKey) int {
	return cmp.Or(cmp.Compare(a.transport, b.transport), cmp.Compare(a.realm, b.realm),
		a.low.Compare(b.low), a.high.Compare(b.high))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
