package evidence

import (
	"sort"
	"time"
)

// Flows returns the flows of which a host sent or received a packet, or a box
// dropped one, in the window from from to to, both included. Traffic and drops
// are those of the window; Opened and Closed are as of its end. The flows are
// sorted by their first packets.
func (ev *Evidence) Flows(from, to time.Time) []*Flow {
	var flows []*Flow
	for _, i := range ev.instances {
		if f := i.flow(from.UnixNano(), to.UnixNano()); f != nil {
			flows = append(flows, f)
		}
	}
	return flows
}

// All returns all flows over the whole capture.
func (ev *Evidence) All() []*Flow {
	flows := make([]*Flow, 0, len(ev.instances))
	for _, i := range ev.instances {
		flows = append(flows, i.flow(-1<<63, 1<<63-1))
	}
	return flows
}

// flow is what the instance was within a window, nil if nothing happened in it.
func (i *instance) flow(from, to int64) *Flow {
	begin := sort.Search(len(i.packets), func(n int) bool { return i.packets[n].at >= from })
	end := sort.Search(len(i.packets), func(n int) bool { return i.packets[n].at > to })
	var drops []Drop
	for _, d := range i.drops {
		if at := d.Time.UnixNano(); at >= from && at <= to {
			drops = append(drops, d)
		}
	}
	if begin >= end && len(drops) == 0 {
		return nil
	}
	f := &Flow{
		Transport: i.key.transport,
		A:         i.ends[i.first],
		B:         i.ends[1-i.first],
		Toward:    i.toward,
		First:     moment(i.packets[0].at),
		Last:      moment(i.packets[len(i.packets)-1].at),
		Drops:     drops,
		Stuck:     i.key.stuck,
		crossings: i.crossed,
		instance:  i,
		mapped:    i.mapped,
	}
	if begin < end {
		f.Began = moment(i.packets[begin].at)
		f.Turned = i.packets[begin].from != i.first
	}
	if !i.opened.IsZero() && i.opened.UnixNano() <= to {
		f.Opened = i.opened
	}
	if !i.closed.IsZero() && i.closed.UnixNano() <= to {
		f.Closed = i.closed
	}
	for n, p := range i.packets {
		t := &f.Forward
		if p.from != i.first {
			t = &f.Backward
		}
		first, bytes, packets := &t.FirstSent, &t.Sent, &t.SentPackets
		if p.arrived {
			first, bytes, packets = &t.FirstReceived, &t.Received, &t.ReceivedPackets
		}
		if first.IsZero() {
			*first = moment(p.at)
		}
		if n >= begin && n < end {
			*bytes += int64(p.payload)
			*packets++
		}
	}
	return f
}
