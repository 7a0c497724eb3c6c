package path

import (
	"slices"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
)

// Times are how long it took until a function's payload got through, in seconds
// since it was asked for.
type Times struct {
	// First is until the first packet of the payload came to the callee, over
	// whichever path.
	First float64 `json:"first_path_seconds"`
	// Best is until the first packet of the payload came over the path that was
	// found.
	Best float64 `json:"best_path_seconds"`
}

// times finds the first packets of the payload at the callee. Which packet that
// is, is told by sizes, since the payload may be encrypted: of a load, the size
// that most packets of the carrying flow have; of a payload that is sent once,
// the packet that comes when only as much as the payload is still to come.
func (f *finder) times(routes []route) *Times {
	var carrying []*evidence.Flow
	for _, r := range routes {
		for _, flow := range f.edges(r.hosts[len(r.hosts)-2], f.ex.Callee) {
			if !slices.Contains(carrying, flow) {
				carrying = append(carrying, flow)
			}
		}
	}
	begins := f.beginOnce
	if f.ex.BothWays {
		begins = f.beginLoad(carrying)
	}
	best, first := time.Time{}, time.Time{}
	for _, flow := range carrying {
		best = sooner(best, begins(flow))
	}
	for _, flow := range f.all {
		first = sooner(first, begins(flow))
	}
	first = sooner(first, best)
	if best.IsZero() {
		return nil
	}
	return &Times{First: first.Sub(f.ex.Since).Seconds(), Best: best.Sub(f.ex.Since).Seconds()}
}

// beginOnce is when the payload began to come over a flow that brought at least
// as much, the zero time for any other.
func (f *finder) beginOnce(flow *evidence.Flow) time.Time {
	var came []evidence.Arrival
	total := int64(0)
	for _, a := range flow.Arrivals(f.ex.Callee) {
		if !a.Time.Before(f.ex.From) && !a.Time.After(f.ex.To) {
			came = append(came, a)
			total += int64(a.Bytes)
		}
	}
	for _, a := range came {
		if total < f.ex.Payload {
			break
		}
		if total -= int64(a.Bytes); total < f.ex.Payload {
			return a.Time
		}
	}
	return time.Time{}
}

// beginLoad tells when media began to come over a flow, by the size of the
// packets on the flows that carry it.
func (f *finder) beginLoad(carrying []*evidence.Flow) func(*evidence.Flow) time.Time {
	size := media.Size(carrying, f.ex.Callee, f.ex.From, f.ex.To)
	return func(flow *evidence.Flow) time.Time {
		for _, a := range flow.Arrivals(f.ex.Callee) {
			if !a.Time.Before(f.ex.Since) && !a.Time.After(f.ex.To) && media.Packets(flow.Transport, a.Bytes, size) > 0 {
				return a.Time
			}
		}
		return time.Time{}
	}
}

// sooner is the earlier of two times that aren't zero.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
