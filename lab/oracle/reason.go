package oracle

import (
	"slices"

	"gauntlet/lab/path"
	"gauntlet/middlebox"
)

// The ends of a pair.
const (
	caller = iota
	callee
)

const udp, tcp = string(middlebox.UDP), string(middlebox.TCP)

// reasoner works out the functions of one pair.
type reasoner struct {
	pair    Pair
	options Options
	known   []helper // once they were looked at
	deaf    [2]bool  // ends that take UDP to be blocked, see draws
	err     error
}

func (r *reasoner) end(i int) End {
	if i == caller {
		return r.pair.Caller
	}
	return r.pair.Callee
}

// world makes one without any past. It is nil once something failed.
func (r *reasoner) world() *world {
	if r.err != nil {
		return nil
	}
	w, err := newWorld(r.pair, r.options)
	if err != nil {
		r.err = err
	}
	return w
}

// begin starts a story with what is in front of the ends.
func (r *reasoner) begin(ends ...int) *story {
	s := &story{}
	for _, i := range ends {
		s.describe(r.end(i))
	}
	return s
}

// tcpRelay says whether an end reaches a supernode over TCP, on any of its
// ports. The story is of one that it reaches, if there is one.
func (r *reasoner) tcpRelay(i int, s *story) bool {
	n := max(0, slices.IndexFunc(r.helpers(), func(h helper) bool { return h.tcp[i] }))
	for _, port := range supernodePorts {
		w := r.world()
		if w == nil {
			return false
		}
		ok, end := w.connects(w.hosts[i], w.supernode(n), port)
		if ok {
			if port != overlayPort {
				s.line("%s reaches supernodes over TCP on port %d", r.end(i).Name, port)
			}
			return true
		}
		s.line("%s reaches no supernode over TCP on port %d: %s", r.end(i).Name, port, s.stopped(end))
	}
	return false
}

// login goes over TCP to the login server, or through a supernode. A client
// that finds no supernode for itself doesn't come as far.
func (r *reasoner) login(i int) Function {
	s := r.begin(i)
	w := r.world()
	if w == nil {
		return Function{}
	}
	straight, end := w.connects(w.hosts[i], w.internet.hosts[0], overlayPort)
	if straight {
		s.line("%s connects to the login server: direct", r.end(i).Name)
	} else {
		s.line("%s doesn't reach the login server: %s", r.end(i).Name, s.stopped(end))
	}
	if !r.tcpRelay(i, s) {
		s.line("it has no supernode of its own, and none that relays: failed")
		return one(s, Route{Path: path.Failed})
	}
	f := Function{Allowed: []Route{{path.Direct, []string{tcp}}}}
	if !straight {
		s.line("a supernode relays to the login server")
		f.Allowed = []Route{{path.Relayed, []string{tcp, tcp}}}
	}
	if out := count(r.helpers(), func(h helper) bool { return !h.tcp[i] }); out > 0 {
		r.tellDenied(i, s)
		if out >= maxHomes || !straight && out >= callRelays {
			f.Allowed = append(f.Allowed, Route{Path: path.Failed})
			f.Why = "of the supernodes that it draws, none may be in reach"
			s.line("%s", f.Why)
		}
	}
	f.Reasoning = s.lines
	return f
}

func one(s *story, route Route) Function {
	return Function{Allowed: []Route{route}, Reasoning: s.lines}
}

// overTCP says by which path a TCP connection between the ends comes about: the
// caller connects, or the callee does when told, or there is none; and which end
// is dialled. A shared box
// in front of both makes no difference to who is free.
func (r *reasoner) overTCP(s *story) (kind string, dialled int, ok bool) {
	for _, from := range []int{caller, callee} {
		w := r.world()
		if w == nil {
			return "", 0, false
		}
		connected, end := w.connects(w.hosts[from], w.hosts[1-from], clientPort)
		if !connected {
			s.line("%s can't open a TCP connection to %s: %s", r.end(from).Name, r.end(1-from).Name, s.stopped(end))
			continue
		}
		kind := r.kind(middlebox.TCP, nil)
		s.line("%s opens a TCP connection to %s: %s", r.end(from).Name, r.end(1-from).Name, kind)
		return kind, 1 - from, true
	}
	return "", 0, false
}

// kind names a path without a node between, by which ends are free.
func (r *reasoner) kind(p middlebox.Protocol, around []string) string {
	switch {
	case r.free(callee, p, around):
		return path.Direct
	case r.free(caller, p, around):
		return path.Reversed
	}
	return path.Punched
}

// free says whether no box on an end's side filters what the other sends. A box
// that both are behind is on nobody's side, unless it is one of those that the
// path leads around: outward, and inward again. Behind translation no end is
// free towards TCP: who waits for connections has no binding to be reached by.
func (r *reasoner) free(i int, p middlebox.Protocol, around []string) bool {
	for _, b := range r.end(i).Boxes {
		if indexOf(r.end(1-i).Boxes, b.Name) >= 0 && !slices.Contains(around, b.Name) {
			break
		}
		if b.Behaviour.FilteringOf(p) != middlebox.FilterEndpointIndependent || p == middlebox.TCP && b.Behaviour.Translates() {
			return false
		}
	}
	return true
}

// signalling goes over TCP always: straight, called back, or over relays that
// both hold, of so many that are chosen.
func (r *reasoner) signalling(chosen int) Function {
	s := r.begin(caller, callee)
	kind, dialled, straight := r.overTCP(s)
	if r.err != nil {
		return Function{}
	}
	f := Function{}
	if straight {
		f.Allowed = []Route{{kind, []string{tcp}}}
		if f.Why = r.untold(dialled); f.Why == "" {
			f.Reasoning = s.lines
			return f
		}
	}
	possible, sure := r.relays(chosen, s)
	switch {
	case possible:
		f.Allowed = append(f.Allowed, Route{path.Relayed, []string{tcp, tcp}})
	case straight:
		f.Why = ""
	}
	if straight {
		if f.Why != "" {
			s.line("%s", f.Why)
		}
		f.Reasoning = s.lines
		return f
	}
	switch {
	case !possible:
		s.line("so no relay is held by both: failed")
		f.Allowed = append(f.Allowed, Route{Path: path.Failed})
	case !sure:
		f.Why = "relays are drawn at random, and boxes deny some of them"
		f.Allowed = append(f.Allowed, Route{Path: path.Failed})
		fallthrough
	default:
		s.line("both hold relays over TCP, of which one carries: relayed")
	}
	f.Reasoning = s.lines
	return f
}

// untold says why it may not be known that an end is reached over TCP, "" if it
// is.
func (r *reasoner) untold(dialled int) string {
	if shared, ok := r.pair.shared(); ok {
		return "supernodes, who look from outside " + shared + ", may not tell that its hosts reach each other over TCP"
	}
	if out := count(r.helpers(), func(h helper) bool { return !h.tcp[dialled] }); 0 < out && out < len(r.helpers()) {
		return "a supernode that " + r.end(dialled).Name + " doesn't reach may be the one that looks whether it is reached over TCP"
	}
	return ""
}

// media goes over UDP where a check gets through, else over TCP to an end that
// takes connections, else over relays.
func (r *reasoner) media() Function {
	call := r.signalling(callRelays)
	mayFail := slices.ContainsFunc(call.Allowed, func(o Route) bool { return o.Path == path.Failed })
	if r.err != nil || len(call.Allowed) == 1 && mayFail {
		call.Reasoning = append(call.Reasoning, "without signalling there is no call, and so no media")
		return call
	}
	s := r.begin(caller, callee)
	routes, outcome, why := r.direct(true, s)
	f := Function{Allowed: routes, Why: why}
	if !outcome.always {
		f.Allowed = append(f.Allowed, r.mediaWithout(s)...)
	} else {
		s.line("media over UDP, %s is free: %s", r.whoIsFree(outcome.around), routes[0].Path)
	}
	if mayFail && !slices.ContainsFunc(f.Allowed, func(o Route) bool { return o.Path == path.Failed }) {
		f.Allowed, f.Why = append(f.Allowed, Route{Path: path.Failed}), call.Why
	}
	if len(f.Allowed) > 1 {
		s.line("so it may be %s: %s", f, f.Why)
	}
	f.Reasoning = s.lines
	return f
}

// whoIsFree names the free ends.
func (r *reasoner) whoIsFree(around []string) string {
	switch a, b := r.free(caller, middlebox.UDP, around), r.free(callee, middlebox.UDP, around); {
	case a && b:
		return "each end"
	case a:
		return r.pair.Caller.Name + " alone"
	case b:
		return r.pair.Callee.Name + " alone"
	}
	return "neither end"
}

// mediaWithout are the paths of media where UDP gets nowhere.
func (r *reasoner) mediaWithout(s *story) (routes []Route) {
	if kind, _, ok := r.overTCP(s); ok {
		return []Route{{kind, []string{tcp}}}
	}
	for _, legs := range r.legs() {
		s.line("a relay carries media: the caller's leg over %s, the callee's over %s", legs[caller], legs[callee])
		routes = append(routes, Route{path.Relayed, legs})
	}
	if len(routes) == 0 {
		return []Route{{Path: path.Failed}}
	}
	return routes
}

// search greets over UDP where an opening datagram gets through, else over TCP
// as signalling does. The ends know each other by what supernodes saw alone.
func (r *reasoner) search() Function {
	s := r.begin(caller, callee)
	// Nothing is predicted here, so that a sequential box is a symmetric one.
	quiet := *r
	quiet.options.Predict = false
	routes, outcome, why := quiet.direct(false, s)
	f := Function{Allowed: routes, Why: why}
	if quiet.err != nil {
		r.err = quiet.err
		return f
	}
	if outcome.always {
		s.line("the authorization goes over UDP: %s", routes[0].Path)
		r.unlocated(&f, s)
		for i := range 2 {
			if !r.tcpRelay(i, s) && f.Why == "" {
				f.Allowed = append(f.Allowed, Route{Path: path.Failed})
				f.Why = r.end(i).Name + " holds no connection to a supernode, through which it would be found or told"
				s.line("%s", f.Why)
			}
		}
	} else {
		over := r.signalling(searchRelays)
		s.lines = append(s.lines, over.Reasoning...)
		f.add(over.Allowed)
		if f.Why == "" {
			f.Why = over.Why
		}
	}
	f.Reasoning = s.lines
	return f
}

// unlocated adds the paths over TCP, where the caller may get no answer over UDP
// from the supernode that knows where the callee is: the callee's own.
func (r *reasoner) unlocated(f *Function, s *story) {
	if count(r.helpers(), func(h helper) bool { return h.tcp[callee] && !h.udp[caller] }) == 0 {
		return
	}
	f.Why = r.pair.Callee.Name + "'s own supernode may be one that answers no datagram of " + r.pair.Caller.Name
	s.line("%s, and the search goes over TCP then", f.Why)
	f.add(r.signalling(searchRelays).Allowed)
}
