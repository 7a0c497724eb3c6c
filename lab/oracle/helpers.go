package oracle

import (
	"fmt"
	"slices"
	"strings"

	"gauntlet/middlebox"
	"gauntlet/middlebox/model"
)

// How many relays the overlay has chosen at random for a function, of which both
// ends use those that they reach (papers.md section 2.3): while fewer supernodes
// than that are out of reach, one of them is sure to do.
const (
	searchRelays = 2
	callRelays   = 4
)

// maxHomes is how many supernodes a client tries as its own, drawn at random.
const maxHomes = 6

// helper is a supernode and which ends reach it. A box may deny some of them.
type helper struct {
	name     string
	tcp, udp [2]bool
	stopped  [2]string // by what, over TCP
}

// helpers looks at each supernode in a world without any past.
func (r *reasoner) helpers() []helper {
	if r.known != nil {
		return r.known
	}
	w := r.world()
	for n := 0; w != nil && n < w.supernodes; n++ {
		h := helper{name: w.supernode(n).name}
		for i := range 2 {
			for _, port := range supernodePorts {
				fresh := r.world()
				if fresh == nil {
					return nil
				}
				ok, end := fresh.connects(fresh.hosts[i], fresh.supernode(n), port)
				if h.tcp[i] = h.tcp[i] || ok; !ok && h.stopped[i] == "" {
					h.stopped[i] = (&story{}).stopped(end)
				}
			}
			fresh := r.world()
			if fresh == nil {
				return nil
			}
			_, h.udp[i] = fresh.asks(fresh.hosts[i], n)
		}
		r.known = append(r.known, h)
	}
	return r.known
}

// asks has a host ask a supernode over UDP, and says how the request was seen
// and whether the answer came back.
func (w *world) asks(h *host, n int) (there arrival, ok bool) {
	sn := socketOf(w.supernode(n))
	there = w.carry(model.Packet{Protocol: middlebox.UDP, From: clientSocket(h), To: sn}, h.at)
	if there.at != w.supernode(n) {
		return there, false
	}
	back := w.carry(model.Packet{Protocol: middlebox.UDP, From: sn, To: there.packet.From}, w.internet)
	return there, back.at == h
}

// count returns how many helpers there are of some kind.
func count(all []helper, is func(helper) bool) (n int) {
	for _, h := range all {
		if is(h) {
			n++
		}
	}
	return n
}

// tellDenied tells which supernodes an end doesn't reach, where it reaches
// others.
func (r *reasoner) tellDenied(i int, s *story) {
	var names []string
	why := ""
	for _, h := range r.helpers() {
		if !h.tcp[i] {
			names, why = append(names, h.name), h.stopped[i]
		}
	}
	if 0 < len(names) && len(names) < len(r.helpers()) {
		s.line("%s doesn't reach %s over TCP, which can't relay for it: %s", r.end(i).Name, strings.Join(names, ", "), why)
	}
}

// relays says whether the overlay finds a relay that both ends hold over TCP out
// of so many that it chooses, at least perhaps.
func (r *reasoner) relays(chosen int, s *story) (possible, sure bool) {
	for _, i := range []int{caller, callee} {
		if !r.tcpRelay(i, s) {
			return false, false
		}
		r.tellDenied(i, s)
	}
	all := r.helpers()
	both := count(all, func(h helper) bool { return h.tcp[caller] && h.tcp[callee] })
	if both == 0 {
		s.line("no supernode is in reach of both")
		return false, false
	}
	sure = len(all)-both < chosen
	if !sure {
		s.line("of %d relays drawn at random, none may be in reach of both", chosen)
	}
	return true, sure
}

// legs are the transports of a relayed payload's two legs, for each kind of
// relay that both reach: UDP where it passes, else TCP.
func (r *reasoner) legs() (all [][]string) {
	leg := func(h helper, i int) string {
		if h.udp[i] && !r.deaf[i] {
			return udp
		}
		return tcp
	}
	for _, h := range r.helpers() {
		if !h.tcp[caller] || !h.tcp[callee] {
			continue
		}
		pair := []string{leg(h, caller), leg(h, callee)}
		if !slices.ContainsFunc(all, func(o []string) bool { return slices.Equal(o, pair) }) {
			all = append(all, pair)
		}
	}
	return all
}

// draws are the ways in which it may turn out whether the ends take UDP to be
// blocked: an end does whose own supernode doesn't answer, whoever else would.
// Which supernode that is, of those in reach over TCP, is chance.
func (r *reasoner) draws() [][2]bool {
	all := [][2]bool{{}}
	for i := range 2 {
		answering := count(r.helpers(), func(h helper) bool { return h.tcp[i] && h.udp[i] })
		silent := count(r.helpers(), func(h helper) bool { return h.tcp[i] && !h.udp[i] })
		if answering == 0 || silent == 0 {
			continue // it is the same whichever it is
		}
		for _, d := range slices.Clone(all) {
			d[i] = true
			all = append(all, d)
		}
	}
	return all
}

// add allows more routes, each once, and says whether there was any to add.
func (f *Function) add(routes []Route) (more bool) {
	for _, route := range routes {
		if !slices.ContainsFunc(f.Allowed, func(o Route) bool { return o.String() == route.String() }) {
			f.Allowed, more = append(f.Allowed, route), true
		}
	}
	return more
}

// union is what the theories of several draws allow together, with the first's
// reasoning. why says what is drawn.
func union(why string, all ...Function) Function {
	f := all[0]
	for _, other := range all[1:] {
		if f.add(other.Allowed) {
			f.Why = why
			f.Reasoning = append(slices.Clone(f.Reasoning), fmt.Sprintf("%s: %s", f.Why, f))
		}
	}
	return f
}
