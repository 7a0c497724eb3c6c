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
// ports.
func (r *reasoner) tcpRelay(i int, s *story) bool {
	for _, port := range supernodePorts {
		w := r.world()
		if w == nil {
			return false
		}
		ok, end := w.connects(w.hosts[i], w.supernode(1), port)
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

// login goes over TCP to the login server, or through a supernode.
func (r *reasoner) login(i int) Function {
	s := r.begin(i)
	w := r.world()
	if w == nil {
		return Function{}
	}
	if ok, end := w.connects(w.hosts[i], w.internet.hosts[0], overlayPort); !ok {
		s.line("%s doesn't reach the login server: %s", r.end(i).Name, s.stopped(end))
	} else {
		s.line("%s connects to the login server: direct", r.end(i).Name)
		return one(s, Route{path.Direct, []string{tcp}})
	}
	if !r.tcpRelay(i, s) {
		s.line("no supernode can relay either: failed")
		return one(s, Route{Path: path.Failed})
	}
	s.line("a supernode relays to the login server")
	return one(s, Route{path.Relayed, []string{tcp, tcp}})
}

func one(s *story, route Route) Function {
	return Function{Allowed: []Route{route}, Reasoning: s.lines}
}

// overTCP says by which path a TCP connection between the ends comes about: the
// caller connects, or the callee does when told, or there is none. A shared box
// in front of both makes no difference to who is free.
func (r *reasoner) overTCP(s *story) (kind string, ok bool) {
	for _, from := range []int{caller, callee} {
		w := r.world()
		if w == nil {
			return "", false
		}
		connected, end := w.connects(w.hosts[from], w.hosts[1-from], clientPort)
		if !connected {
			s.line("%s can't open a TCP connection to %s: %s", r.end(from).Name, r.end(1-from).Name, s.stopped(end))
			continue
		}
		kind := r.kind(middlebox.TCP)
		s.line("%s opens a TCP connection to %s: %s", r.end(from).Name, r.end(1-from).Name, kind)
		return kind, true
	}
	return "", false
}

// kind names a path without a node between, by which ends are free.
func (r *reasoner) kind(p middlebox.Protocol) string {
	switch {
	case r.free(callee, p):
		return path.Direct
	case r.free(caller, p):
		return path.Reversed
	}
	return path.Punched
}

// free says whether no box on an end's side filters what the other sends. A box
// that both are behind is on nobody's side. Behind
// translation no end is free towards TCP: who waits for connections has no
// binding to be reached by.
func (r *reasoner) free(i int, p middlebox.Protocol) bool {
	for _, b := range r.end(i).Boxes {
		if indexOf(r.end(1-i).Boxes, b.Name) >= 0 {
			break
		}
		if b.Behaviour.FilteringOf(p) != middlebox.FilterEndpointIndependent || p == middlebox.TCP && b.Behaviour.Translates() {
			return false
		}
	}
	return true
}

// signalling goes over TCP always: straight, called back, or over relays that
// both hold.
func (r *reasoner) signalling() Function {
	s := r.begin(caller, callee)
	kind, straight := r.overTCP(s)
	if shared, ok := r.pair.shared(); straight && ok && r.err == nil {
		f := one(s, Route{kind, []string{tcp}})
		if r.tcpRelay(caller, s) && r.tcpRelay(callee, s) {
			f.Allowed = append(f.Allowed, Route{path.Relayed, []string{tcp, tcp}})
			f.Why = "supernodes, who look from outside " + shared + ", may not tell that its hosts reach each other over TCP"
			s.line("%s", f.Why)
		}
		f.Reasoning = s.lines
		return f
	}
	if straight {
		return one(s, Route{kind, []string{tcp}})
	}
	if !r.tcpRelay(caller, s) || !r.tcpRelay(callee, s) {
		s.line("so no relay is held by both: failed")
		return one(s, Route{Path: path.Failed})
	}
	s.line("both hold relays over TCP, of which one carries: relayed")
	return one(s, Route{path.Relayed, []string{tcp, tcp}})
}

// openings is how many first turns are tried in every order.
const openings = 4

// orders are the orders of turns that are tried: all for the first turns, then
// one end after the other until nothing new can come.
func orders() [][]int {
	var all [][]int
	for mask := range 1 << openings {
		var order []int
		for n := range openings {
			order = append(order, mask>>n&1)
		}
		all = append(all, append(order, caller, callee, caller, callee, caller, callee))
	}
	return all
}

// punch runs the checks in every order and says whether UDP works between the
// ends always, or at least sometimes. The story told is that of the first
// order, and of the first that ends otherwise.
func (r *reasoner) punch(t terms, s *story) (always, sometimes bool) {
	t.options = r.options
	disturbed := []bool{false}
	if r.options.Predict && r.options.CrossTraffic {
		disturbed = append(disturbed, true)
	}
	works := func(order []int, together, others bool, told *story) bool {
		c, err := newTalk(r.pair, t, told)
		if err != nil {
			r.err = err
			return false
		}
		c.disturbed = others
		c.play(order, together)
		if c.err != nil {
			r.err = c.err
		}
		return c.settled()
	}
	first := works(orders()[0], false, false, s)
	always, sometimes = first, first
	for _, others := range disturbed {
		for n, order := range orders() {
			together := n == 0 && !others // once, both first requests on their way at once
			if r.err != nil {
				return false, false
			}
			ok := works(order, together, others, nil)
			if ok != first && always == sometimes {
				s.line("but in another order, or with other flows between, it is otherwise:")
				works(order, together, others, s)
			}
			always, sometimes = always && ok, sometimes || ok
		}
	}
	return always, sometimes
}

// direct says by which paths UDP goes between the ends without a node between,
// and whether it is sure to.
func (r *reasoner) direct(private bool, s *story) (routes []Route, sure bool, why string) {
	always, sometimes := r.punch(terms{private: private}, s)
	if sometimes {
		routes = append(routes, Route{r.kind(middlebox.UDP), []string{udp}})
	}
	if sometimes && !always {
		why = "it depends on whose packet is first"
		if r.options.Predict && r.options.CrossTraffic {
			why = "another flow may take the port that was predicted"
		}
	}
	shared, near := r.pair.shared()
	if !near || always {
		return routes, always, why
	}
	// What else an end might try that is behind the same box as its peer.
	if _, ok := r.punch(terms{private: true, unseen: true}, nil); ok && !sometimes {
		routes = append(routes, Route{r.kind(middlebox.UDP), []string{udp}})
		why = "both are behind " + shared + " and reach each other there, if they exchange addresses that no supernode has seen"
		s.line("%s", why)
	}
	return routes, false, why
}

// media goes over UDP where a check gets through, else over TCP to an end that
// takes connections, else over relays.
func (r *reasoner) media() Function {
	if call := r.signalling(); r.err != nil || len(call.Allowed) == 1 && call.Allowed[0].Path == path.Failed {
		call.Reasoning = append(call.Reasoning, "without signalling there is no call, and so no media")
		return call
	}
	s := r.begin(caller, callee)
	routes, sure, why := r.direct(true, s)
	f := Function{Allowed: routes, Why: why}
	if !sure {
		f.Allowed = append(f.Allowed, r.mediaWithout(s))
	} else {
		s.line("media over UDP, %s is free: %s", r.whoIsFree(), routes[0].Path)
	}
	if len(f.Allowed) > 1 {
		s.line("so it may be %s: %s", f, f.Why)
	}
	f.Reasoning = s.lines
	return f
}

// whoIsFree names the free ends.
func (r *reasoner) whoIsFree() string {
	switch a, b := r.free(caller, middlebox.UDP), r.free(callee, middlebox.UDP); {
	case a && b:
		return "each end"
	case a:
		return r.pair.Caller.Name + " alone"
	case b:
		return r.pair.Callee.Name + " alone"
	}
	return "neither end"
}

// mediaWithout is the path of media where UDP gets nowhere.
func (r *reasoner) mediaWithout(s *story) Route {
	if kind, ok := r.overTCP(s); ok {
		return Route{kind, []string{tcp}}
	}
	legs := make([]string, 2)
	for i := range legs {
		switch {
		case r.udpRelay(i):
			legs[i] = udp
		case r.tcpRelay(i, s):
			legs[i] = tcp
		default:
			return Route{Path: path.Failed}
		}
	}
	s.line("a relay carries media: the caller's leg over %s, the callee's over %s", legs[caller], legs[callee])
	return Route{path.Relayed, legs}
}

// udpRelay says whether an end and a supernode reach each other over UDP.
func (r *reasoner) udpRelay(i int) bool {
	w := r.world()
	if w == nil {
		return false
	}
	c := &talk{world: w}
	a := &agent{host: w.hosts[i]}
	a.local = clientSocket(a.host)
	c.ask(a)
	return a.external.IsValid()
}

// search greets over UDP where an opening datagram gets through, else over TCP
// as signalling does. The ends know each other by what supernodes saw alone.
func (r *reasoner) search() Function {
	s := r.begin(caller, callee)
	// Nothing is predicted here, so that a sequential box is a symmetric one.
	quiet := *r
	quiet.options.Predict = false
	routes, sure, why := quiet.direct(false, s)
	f := Function{Allowed: routes, Why: why}
	if quiet.err != nil {
		r.err = quiet.err
		return f
	}
	if sure {
		s.line("the authorization goes over UDP: %s", routes[0].Path)
		for i := range 2 {
			if !r.tcpRelay(i, s) && f.Why == "" {
				f.Allowed = append(f.Allowed, Route{Path: path.Failed})
				f.Why = r.end(i).Name + " holds no connection to a supernode, through which it would be found or told"
				s.line("%s", f.Why)
			}
		}
	} else {
		over := r.signalling()
		s.lines = append(s.lines, over.Reasoning...)
		for _, route := range over.Allowed {
			if !slices.ContainsFunc(f.Allowed, func(o Route) bool { return o.String() == route.String() }) {
				f.Allowed = append(f.Allowed, route)
			}
		}
		if f.Why == "" {
			f.Why = over.Why
		}
	}
	f.Reasoning = s.lines
	return f
}
