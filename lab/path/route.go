package path

import (
	"slices"
	"strings"

	"gauntlet/lab/evidence"
)

// maxHops and maxRoutes bound the search; more than either is no path that a
// person would follow.
const (
	maxHops   = 8
	maxRoutes = 64
)

// route is a way of the payload: the hosts from the caller to the callee.
type route struct{ hosts []string }

func (r route) hops() int { return len(r.hosts) - 2 }

func (r route) String() string { return strings.Join(r.hosts, " -> ") }

// carries says whether the flow brought the payload from a host to another.
func (f *finder) carries(flow *evidence.Flow, from, to string) bool {
	if from == to || !flow.Between(from, to) {
		return false
	}
	t := flow.OutOf(from)
	return t.Sent >= f.ex.Payload && t.Received >= f.ex.Payload
}

// edges returns the flows that carry from one host to another.
func (f *finder) edges(from, to string) []*evidence.Flow {
	var found []*evidence.Flow
	for _, flow := range f.flows {
		if f.carries(flow, from, to) {
			found = append(found, flow)
		}
	}
	return found
}

// trace returns all routes of the payload between two hosts and checks that it
// went no other way.
func (f *finder) trace(from, to string) []route {
	graph := map[string][]string{}
	for _, flow := range f.flows {
		for _, d := range [][2]string{{flow.A.Host, flow.B.Host}, {flow.B.Host, flow.A.Host}} {
			if f.carries(flow, d[0], d[1]) && !slices.Contains(graph[d[0]], d[1]) {
				graph[d[0]] = append(graph[d[0]], d[1])
			}
		}
	}
	for _, next := range graph {
		slices.Sort(next)
	}
	var routes []route
	var walk func(hosts []string)
	walk = func(hosts []string) {
		last := hosts[len(hosts)-1]
		if last == to {
			routes = append(routes, route{slices.Clone(hosts)})
			return
		}
		for _, next := range graph[last] {
			if len(routes) < maxRoutes && len(hosts) <= maxHops+1 && !slices.Contains(hosts, next) {
				walk(append(hosts, next))
			}
		}
	}
	walk([]string{from})
	f.checkOthers(from, to, routes)
	return routes
}

// checkOthers looks at the flows out of the sender and into the receiver that
// are on no route. What they carry counts where it arrived: packets that
// reached nobody brought no payload.
func (f *finder) checkOthers(from, to string, routes []route) {
	onRoute := func(flow *evidence.Flow, a, b string) bool {
		return slices.ContainsFunc(routes, func(r route) bool {
			i := slices.Index(r.hosts, a)
			return i >= 0 && i+1 < len(r.hosts) && r.hosts[i+1] == b && f.carries(flow, a, b)
		})
	}
	var gone, come stripes
	for _, flow := range f.flows {
		out, in := flow.OutOf(from), flow.Into(to)
		peer, origin := flow.Peer(from), flow.Peer(to)
		switch {
		case peer != "" && out.Sent > 0 && onRoute(flow, from, peer):
		case origin != "" && in.Received > 0 && onRoute(flow, origin, to):
		case f.minor(in.Received) && f.minor(out.Received):
			gone.add(flow, out.Received)
			come.add(flow, in.Received)
			if out.Sent >= f.ex.Payload {
				f.note("%s: %s left %s and %s arrived", flow, size(out.Sent), from, size(out.Received))
			}
		case !f.minor(in.Received) && origin == "":
			f.doubt("%s came to %s over %s, and its sender could not be told", size(in.Received), to, flow)
		case !f.minor(in.Received):
			f.doubt("%s came to %s over %s, which is on no route from %s", size(in.Received), to, flow, from)
		case f.carries(flow, from, peer) && slices.ContainsFunc(routes, func(r route) bool { return r.hops() == 0 }):
			f.doubt("%s took %s of the payload from %s beside the direct path", peer, size(out.Received), from)
		case f.carries(flow, from, peer):
			f.note("%s took %s out of %s and led no further", flow, size(out.Received), from)
		default:
			f.doubt("%s went out of %s over %s, too much for a flow that does not carry %s",
				size(out.Received), from, flow, size(f.ex.Payload))
		}
	}
	if gone.whole(f.ex.Payload) {
		f.doubt("%s went out of %s, as much as the payload, over %s", size(gone.bytes), from, &gone)
	}
	if come.whole(f.ex.Payload) {
		f.doubt("%s came to %s, as much as the payload, over %s", size(come.bytes), to, &come)
	}
}

// minor says whether bytes are so few that a flow does not carry.
func (f *finder) minor(n int64) bool { return n*minorShare < f.ex.Payload }

// agree checks that the payload went back over the path it came.
func (f *finder) agree(forward, back []route) {
	names := func(routes []route, turn bool) []string {
		var list []string
		for _, r := range routes {
			hosts := slices.Clone(r.hosts)
			if turn {
				slices.Reverse(hosts)
			}
			list = append(list, route{hosts}.String())
		}
		slices.Sort(list)
		return list
	}
	there, here := names(forward, false), names(back, true)
	switch {
	case slices.Equal(there, here):
	case len(back) == 0:
		f.doubt("the payload went from %s to %s, and none came back", f.ex.Caller, f.ex.Callee)
	case len(forward) == 0:
		f.doubt("the payload came from %s to %s, and none went there", f.ex.Callee, f.ex.Caller)
	default:
		f.doubt("the payload went over %s and came back over %s",
			strings.Join(there, " and "), strings.Join(here, " and "))
	}
}
