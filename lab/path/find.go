package path

import (
	"fmt"
	"slices"
	"strings"

	"gauntlet/lab/evidence"
)

// minorShare is the part of the payload that a flow which does not carry must
// stay below: a quarter.
const minorShare = 4

// Find says by which path the exchange's payload went.
//
// A flow carries if, within the window, at least the payload's bytes were sent
// by one of its ends and arrived at the other. The carrying flows are the
// edges of a graph over hosts, and each way through it from caller to callee
// is a route. Flows that do not carry must bring less than a quarter of the
// payload out of the caller or into the callee, and less than all of it together;
// and no box may have let in a packet that its filtering would have stopped. Where
// any of it does not hold, or where routes differ in kind, the finding is
// inconclusive.
func Find(ev *evidence.Evidence, ex evidence.Exchange) Finding {
	if ex.Since.IsZero() || ex.Since.After(ex.From) {
		ex.Since = ex.From
	}
	f := &finder{ev: ev, ex: ex, flows: ev.Flows(ex.From, ex.To), all: ev.Flows(ex.Since, ex.To)}
	f.found.Record = Record{Path: Failed, Legs: []Leg{}}
	f.find()
	f.found.Drops, f.found.MoreDrops = f.drops()
	f.noteDrops()
	return f.found
}

// finder holds what Find works on.
type finder struct {
	ev    *evidence.Evidence
	ex    evidence.Exchange
	flows []*evidence.Flow // in the window
	all   []*evidence.Flow // since the function began
	found Finding
}

func (f *finder) note(format string, args ...any) {
	f.found.Notes = append(f.found.Notes, fmt.Sprintf(format, args...))
}

// doubt makes the finding inconclusive. The first reason stays, later ones
// become notes.
func (f *finder) doubt(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	if f.found.Inconclusive == "" {
		f.found.Inconclusive = reason
	}
	f.found.Notes = append(f.found.Notes, reason)
}

func (f *finder) find() {
	ex := f.ex
	switch {
	case f.ev.World.Host(ex.Caller) == nil || f.ev.World.Host(ex.Callee) == nil:
		f.doubt("%s or %s is no host of this world", ex.Caller, ex.Callee)
		return
	case ex.Caller == ex.Callee:
		f.doubt("%s is both caller and callee", ex.Caller)
		return
	case ex.Payload <= 0:
		f.doubt("no payload was traced")
		return
	}
	forward := f.trace(ex.Caller, ex.Callee)
	record := &f.found.Record
	record.Relays = len(f.standby())
	var back []route
	if ex.BothWays {
		back = f.trace(ex.Callee, ex.Caller)
	}
	if len(forward) == 0 {
		if ex.BothWays {
			f.agree(forward, back)
		}
		if f.found.Inconclusive == "" {
			f.note("no flow brought %s from %s to %s", size(ex.Payload), ex.Caller, ex.Callee)
		}
		return
	}
	f.classify(forward)
	if ex.BothWays {
		f.agree(forward, back)
	}
	f.found.Times = f.times(forward)
}

// classify fills in the record from the routes that carry.
func (f *finder) classify(routes []route) {
	record := &f.found.Record
	hops := routes[0].hops()
	first := map[string]bool{}
	relays := f.standby()
	var legs []*evidence.Flow
	for _, r := range routes {
		f.compare(routes, r)
		if r.hops() > 0 {
			first[r.hosts[1]] = true
		}
		for _, host := range r.hosts[1 : len(r.hosts)-1] {
			relays[host] = true
		}
		for n := range r.hops() + 1 {
			from, to := r.hosts[n], r.hosts[n+1]
			edges := f.edges(from, to)
			if len(edges) > 1 {
				f.doubt("the payload went from %s to %s over %d flows at once: %s and %s", from, to, len(edges), edges[0], edges[1])
			}
			for _, flow := range edges {
				leg := Leg{From: from, To: to, Transport: flow.Transport}
				if !slices.Contains(record.Legs, leg) {
					record.Legs = append(record.Legs, leg)
				}
				if !slices.Contains(legs, flow) {
					legs = append(legs, flow)
					f.found.Flows = append(f.found.Flows, flow.String())
					f.note("%s carried %s from %s to %s", flow, size(flow.OutOf(from).Sent), from, to)
				}
			}
		}
	}
	record.Hops, record.Carrying, record.Relays = hops, len(first), len(relays)
	record.Path = Relayed
	if hops == 0 {
		record.Path = f.kind(legs)
	}
	for _, flow := range legs {
		f.checkFilters(flow)
	}
}

// compare doubts routes of different length.
func (f *finder) compare(routes []route, r route) {
	other := routes[0]
	if r.hops() == other.hops() {
		return
	}
	if r.hops() == 0 {
		other, r = r, other
	}
	if other.hops() == 0 {
		f.doubt("%s carried the payload beside the direct path: %s", strings.Join(r.hosts[1:len(r.hosts)-1], " and "), r)
		return
	}
	f.doubt("the payload went over routes of different length: %s and %s", other, r)
}

// kind tells direct, reversed and punched apart by which ends are free towards
// the flows that carry.
func (f *finder) kind(legs []*evidence.Flow) string {
	callerFree, callerBoxes := f.free(f.ex.Caller, f.ex.Callee, legs)
	calleeFree, calleeBoxes := f.free(f.ex.Callee, f.ex.Caller, legs)
	say := func(host string, free bool, boxes []string) {
		if free {
			f.note("%s is free: no box on its side filters", host)
		} else {
			f.note("%s is not free: %s", host, strings.Join(boxes, ", "))
		}
	}
	say(f.ex.Caller, callerFree, callerBoxes)
	say(f.ex.Callee, calleeFree, calleeBoxes)
	switch {
	case calleeFree:
		return Direct
	case callerFree:
		return Reversed
	}
	return Punched
}

// standby returns the hosts with which both ends hold a TCP connection that
// was made in the exchange and is open at the window's end.
func (f *finder) standby() map[string]bool {
	held := func(end string) map[string]bool {
		peers := map[string]bool{}
		for _, flow := range f.all {
			peer := flow.Peer(end)
			if peer == "" || peer == f.ex.Caller || peer == f.ex.Callee {
				continue
			}
			if flow.Transport == evidence.TCP && !flow.First.Before(f.ex.Since) &&
				!flow.Opened.IsZero() && flow.Closed.IsZero() {
				peers[peer] = true
			}
		}
		return peers
	}
	caller, callee := held(f.ex.Caller), held(f.ex.Callee)
	both := map[string]bool{}
	for peer := range caller {
		if callee[peer] {
			both[peer] = true
		}
	}
	return both
}

// size writes bytes for people.
func size(n int64) string {
	if n < 10<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
