package media

import (
	"slices"
	"time"

	"gauntlet/lab/evidence"
)

// fewest is how many packets of the load's size make a UDP flow one that media
// went over: the overlay's own datagrams may have that size by chance.
const fewest = 3

// moment is when packets of media were at an end's interface, and on which flow.
type moment struct {
	time    time.Time
	packets int
	flow    *evidence.Flow
}

// stream is what left one end, and what came to the other.
type stream struct {
	from, to   string
	sent, came []moment
	// said is all payload that left, media or not; beside is what left until the lab
	// did something, over flows that media didn't go over then.
	said, beside []moment
}

// streams are both directions of an exchange's media since it began: out of the
// caller, and out of the callee.
func streams(ev *evidence.Evidence, ex evidence.Exchange, size int) [2]stream {
	both := [2]stream{{from: ex.Caller, to: ex.Callee}, {from: ex.Callee, to: ex.Caller}}
	since, until := began(ex), ex.Until()
	usual := until
	if len(ex.Events) > 0 {
		usual = ex.Events[0].Began
	}
	for _, f := range ev.Flows(since, until) {
		for n := range both {
			s := &both[n]
			left := f.Departures(s.from)
			s.sent = append(s.sent, loaded(f, left, since, until, size)...)
			s.said = append(s.said, filled(f, left, since, until)...)
			if len(loaded(f, left, since, usual, size)) == 0 {
				s.beside = append(s.beside, filled(f, left, since, usual)...)
			}
			s.came = append(s.came, loaded(f, f.Arrivals(s.to), since, until, size)...)
		}
	}
	for n := range both {
		for _, m := range [][]moment{both[n].sent, both[n].came, both[n].said, both[n].beside} {
			slices.SortStableFunc(m, func(a, b moment) int { return a.time.Compare(b.time) })
		}
	}
	return both
}

// began is when a flow must have packets at the earliest to be the exchange's.
func began(ex evidence.Exchange) time.Time {
	if ex.Since.IsZero() || ex.Since.After(ex.From) {
		return ex.From
	}
	return ex.Since
}

// loaded are the packets of media among those that one end of a flow sent or got;
// none if the flow is not one of media. A TCP segment that holds a part of a
// packet counts for what is whole with it: most of the flow's segments hold
// whole ones.
func loaded(f *evidence.Flow, all []evidence.Arrival, since, until time.Time, size int) (found []moment) {
	filled, whole, bytes := 0, 0, 0
	for _, a := range all {
		if a.Bytes == 0 || a.Time.Before(since) || a.Time.After(until) {
			continue
		}
		filled++
		n := Packets(f.Transport, a.Bytes, size)
		if n > 0 {
			whole++
		}
		if f.Transport == evidence.TCP {
			n = (bytes+a.Bytes)/(size+Framing) - bytes/(size+Framing)
			bytes += a.Bytes
		}
		if n > 0 {
			found = append(found, moment{a.Time, n, f})
		}
	}
	if whole < fewest || f.Transport == evidence.TCP && 2*whole < filled {
		return nil
	}
	return found
}

// filled are all packets with payload among those, of media or not.
func filled(f *evidence.Flow, all []evidence.Arrival, since, until time.Time) (found []moment) {
	for _, a := range all {
		if a.Bytes > 0 && !a.Time.Before(since) && !a.Time.After(until) {
			found = append(found, moment{a.Time, 1, f})
		}
	}
	return found
}

// sizeOf is the size of the media packets that came to the callee in the window.
// Where the lab did something, after which there may be no media at all, it is of the
// whole call.
func sizeOf(ev *evidence.Evidence, ex evidence.Exchange) int {
	from, to := ex.From, ex.To
	if len(ex.Events) > 0 {
		from, to = began(ex), ex.Until()
	}
	return Size(ev.Flows(from, to), ex.Callee, from, to)
}

// within are the moments of a window, both ends included.
func within(all []moment, from, to time.Time) []moment {
	begin, _ := slices.BinarySearchFunc(all, from, func(m moment, t time.Time) int { return m.time.Compare(t) })
	end := begin
	for end < len(all) && !all[end].time.After(to) {
		end++
	}
	return all[begin:end]
}
