package evidence

import (
	"cmp"
	"slices"
)

// drop gives a dropped packet to its flow. If it belongs to none that a host's
// interface saw, it is returned.
func (j *joiner) drop(d DroppedPacket) (orphan Drop, ok bool) {
	drop := Drop{Time: d.Time, Router: d.Router, Rule: d.Rule}
	p, parsed := ParsePacket(d.Packet)
	if !parsed {
		return drop, true
	}
	drop.Source, drop.Destination = p.Tuple.Src, p.Tuple.Dst
	// A packet outward has the tuple that the box's inner side knows, or its
	// translation; one inward has the mirror of either.
	for _, inward := range []bool{false, true} {
		tuple := p.Tuple
		if inward {
			tuple = tuple.Reverse()
		}
		i, end := j.find(j.places[view{d.Router, p.Transport, tuple}], d.Time)
		if i == nil {
			continue
		}
		if inward {
			end = 1 - end
		}
		i.dropped(drop, end)
		return Drop{}, false
	}
	// No host behind the box knows the tuple: a packet from outside to the
	// box's address, followed outward from there.
	r := j.outward(d.Router, p.Transport, p.Tuple.Reverse(), d.Time)
	key, end := keyOf(p.Transport, r)
	i, _ := j.find([]placed{{key: key}}, d.Time)
	if i == nil {
		return drop, true
	}
	i.dropped(drop, 1-end)
	return Drop{}, false
}

// dropped notes that a packet which one end sent was dropped.
func (i *instance) dropped(d Drop, sender int) {
	d.From = i.ends[sender].Host
	i.drops = append(i.drops, d)
}

func sortDrops(drops []Drop) {
	slices.SortStableFunc(drops, func(a, b Drop) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Router, b.Router))
	})
}
