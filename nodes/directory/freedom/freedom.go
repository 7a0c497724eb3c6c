// Package freedom finds out which of two ends that reach each other over UDP is
// free: whether no box filters what the one sends to the other (RFC 4787 §5), which
// tells a direct path, a reversed and a punched one apart.
//
// Supernodes can't say so of two ends that have a box in common, since they look at
// both from outside it; and the socket of which the path was found can't either, as
// both ends have sent to each other from it. So each end opens a second one, its
// quiet endpoint, which has sent nothing but a STUN request to a supernode: whatever
// of the other end's reaches that came in unasked.
//
//	one end                                     other end
//	   | ---- probe, to the quiet endpoint -------> |   gets in, if that end is free
//	   | ---- question, over the path found ------> |   and after it, on the same way:
//	   | <--- answer: it did, or it did not ------- |   what is lost, a box stopped
//
// The question goes over the path that works and follows the probe, so that a no
// takes a round trip and no waiting.
package freedom

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/stun"
	"gauntlet/nodes/wire"
)

const (
	// questions is how often an end asks before it believes that its probes are
	// stopped, and not lost: with a tenth of all packets lost, one no in a thousand
	// is wrong.
	questions = 3
	// maxEnds bounds the attempts of a user that are going on, each of which has a
	// socket.
	maxEnds = 32
)

// Path is what a path straight between two ends is called, by which of them is
// free: the caller reaches a callee that is directly, is reached by it if it is
// free itself, and otherwise both have to punch.
func Path(callee, caller bool) string {
	switch {
	case callee:
		return "direct"
	case caller:
		return "reversed"
	}
	return "punched"
}

// probe is what is sent to a quiet endpoint, to one of its addresses.
type probe struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
	To      netip.AddrPort
}

// question asks whether a probe arrived.
type question struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
	To      netip.AddrPort // where the probe was sent; zero: nowhere yet, as the address isn't known
	Last    bool           // there will be no other probe
}

// answer is nothing but Ready, which is false, before the end knows its addresses.
type answer struct {
	_       struct{} `cbor:",toarray"`
	Ready   bool
	From    netip.AddrPort // where the question came from
	Seen    netip.AddrPort // of the quiet endpoint, from outside
	Local   netip.AddrPort // of the same, as its host has it
	Reached bool           // the probe arrived, or needs none
}

// Service answers for all attempts of a user.
type Service struct {
	client *directory.Client

	mu   sync.Mutex
	ends map[key]*End
}

// key is an attempt with one other end.
type key struct {
	session directory.Session
	peer    [32]byte // hash of its certificate
}

// New makes the service and takes its datagrams, until Close.
func New(client *directory.Client) *Service {
	s := &Service{client: client, ends: map[key]*End{}}
	client.Socket.Handle(directory.KindQuestion, s.handleQuestion)
	return s
}

// Close takes no more datagrams. Ends are closed by who opened them.
func (s *Service) Close() { s.client.Socket.Handle(directory.KindQuestion, nil) }

// End is one attempt to find out about this end and another.
type End struct {
	service *Service
	key     key
	peer    *identity.Certificate
	socket  *datagram.Socket // the quiet endpoint; nil at a public end, which needs none

	mu      sync.Mutex
	ready   bool
	seen    netip.AddrPort
	local   netip.AddrPort
	reached map[netip.AddrPort]bool // by where the other end's probe was sent to
	known   map[netip.AddrPort]bool // likewise whether one gets in, once that is certain
	changed chan struct{}           // closed, and made anew, with every change of the two
}

// Open begins an attempt. public says that this end is known to be free towards
// everybody. Until Close it answers the other end's questions. The error is that of
// a socket that can't be opened, or that there are too many.
func (s *Service) Open(ctx context.Context, session directory.Session, peer *identity.Certificate, public bool) (*End, error) {
	e := &End{service: s, key: key{session, peer.Hash()}, peer: peer,
		reached: map[netip.AddrPort]bool{}, known: map[netip.AddrPort]bool{}, changed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, known := s.ends[e.key]; {
	case known:
		return nil, errors.New("there is such an attempt already")
	case len(s.ends) >= maxEnds:
		return nil, errors.New("too many attempts at once")
	}
	if !public {
		if err := e.listen(ctx); err != nil {
			return nil, err
		}
	}
	s.client.Socket.Know(peer)
	s.ends[e.key] = e
	return e, nil
}

// listen opens the quiet endpoint.
func (e *End) listen(ctx context.Context) (err error) {
	c := e.service.client
	addr := c.Socket.LocalAddr().Addr()
	if all := c.Network.Addrs(); addr.IsUnspecified() && len(all) > 0 {
		addr = all[0]
	}
	e.socket, err = datagram.Listen(context.WithoutCancel(ctx), c.Network, netip.AddrPortFrom(addr, 0),
		datagram.Config{Keys: c.Keys, Roots: c.Roots, Profile: c.Profile, Log: c.Log})
	if err != nil {
		return err
	}
	e.local = netip.AddrPortFrom(addr, e.socket.LocalAddr().Port())
	e.socket.Know(e.peer)
	e.socket.Handle(directory.KindProbe, e.handleProbe)
	return nil
}

// Close ends the attempt.
func (e *End) Close() {
	e.service.mu.Lock()
	delete(e.service.ends, e.key)
	e.service.mu.Unlock()
	if e.socket != nil {
		e.socket.Close()
	}
}

// handleProbe notes that something of the other end's came in unasked.
func (e *End) handleProbe(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
	var m probe
	if o.Cert == nil || o.CertHash != e.key.peer || o.Decode(&m) != nil || m.Session != e.key.session {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if (m.To == e.seen || m.To == e.local) && !e.reached[m.To] {
		e.reached[m.To] = true
		e.change()
	}
	return nil
}

// change wakes who waits. Called with the lock held.
func (e *End) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// await waits for a condition, which is looked at with the lock held, until ctx ends.
func (e *End) await(ctx context.Context, is func() bool) {
	for {
		e.mu.Lock()
		yes, changed := is(), e.changed
		e.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// handleQuestion answers the other end's question.
func (s *Service) handleQuestion(ctx context.Context, from netip.AddrPort, o *wire.Opened) any {
	var m question
	if o.Cert == nil || o.Decode(&m) != nil {
		return nil
	}
	s.mu.Lock()
	e := s.ends[key{m.Session, o.CertHash}]
	s.mu.Unlock()
	if e == nil {
		return answer{} // it isn't as far as the other end yet
	}
	if e.socket == nil {
		return answer{Ready: true, From: from, Reached: true}
	}
	if m.Last { // opening a probe that came before may take longer than this
		wait, cancel := context.WithTimeout(ctx, s.client.Profile.CheckInterval)
		e.await(wait, func() bool { return e.reached[m.To] })
		cancel()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	a := answer{Ready: e.ready, From: from, Seen: e.seen, Local: e.local, Reached: e.reached[m.To]}
	if e.ready && (m.To == e.seen || m.To == e.local) && (a.Reached || m.Last) {
		e.known[m.To] = a.Reached
		e.change()
	}
	return a
}

// Settle finds out whether this end is free towards the other and the other towards
// this one. over is the other end's address on the path that works. What can't be
// found out before ctx ends counts as filtered. It may be called again for another
// path.
func (e *End) Settle(ctx context.Context, over netip.AddrPort) (mine, theirs bool) {
	var looking sync.WaitGroup
	looking.Go(func() { e.look(ctx) })
	theirs, seen := e.ask(ctx, over)
	looking.Wait()
	if e.socket == nil {
		return true, theirs
	}
	// The other end probes this one likewise.
	e.mu.Lock()
	own := toward(seen, e.local, e.seen)
	e.mu.Unlock()
	e.await(ctx, func() bool {
		_, certain := e.known[own]
		return certain
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[own], theirs
}

// look has a supernode say how the quiet endpoint is seen. Where none does, others
// can't be told any other address than its own.
func (e *End) look(ctx context.Context) {
	e.mu.Lock()
	ready, seen := e.ready, e.local
	e.mu.Unlock()
	if ready || e.socket == nil {
		return
	}
	c := e.service.client
	bound, cancel := context.WithTimeoutCause(ctx, c.Profile.UDPAnswer, errors.New("no answer"))
	defer cancel()
	home, _, err := c.Home(bound)
	if err == nil {
		var from netip.AddrPort
		if from, err = stun.Binding(bound, e.socket, home.Addr); err == nil {
			seen = from
		}
	}
	if err != nil {
		c.Log.Info("no supernode says how the quiet endpoint is seen", "error", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready, e.seen = true, seen
}

// ask probes the other end's quiet endpoint and asks whether that arrived. It
// returns, too, how this end is seen on the way.
func (e *End) ask(ctx context.Context, over netip.AddrPort) (reached bool, seen netip.AddrPort) {
	c := e.service.client
	var to netip.AddrPort
	for asked := 0; asked < questions; {
		if to.IsValid() {
			asked++
			if err := c.Socket.Send(to, e.peer.Seal, directory.KindProbe, probe{Session: e.key.session, To: to}); err != nil {
				c.Log.Debug("probe not sent", "to", to, "error", err)
			}
		}
		var a answer
		m := question{Session: e.key.session, To: to, Last: asked == questions}
		if err := c.Socket.RequestShort(ctx, over, e.peer.Seal, directory.KindQuestion, m, &a); err != nil {
			c.Log.Info("other end's freedom not found out", "peer", e.peer.Name, "error", err)
			return false, seen
		}
		seen = a.From
		switch {
		case a.Reached:
			return true, seen
		case to.IsValid():
		case a.Ready:
			if to = toward(over, a.Local, a.Seen); !network.Unicast(to) {
				c.Log.Info("other end's quiet endpoint can't be probed", "peer", e.peer.Name, "at", to)
				return false, seen
			}
		default:
			select {
			case <-time.After(c.Profile.CheckInterval):
			case <-ctx.Done():
				return false, seen
			}
		}
	}
	return false, seen
}

// toward is at which of its addresses a quiet endpoint is reached as the socket is
// of which the path was found, which is at another one: its own within a network of
// both ends, and from outside where it is seen from there.
func toward(path, local, seen netip.AddrPort) netip.AddrPort {
	if path.Addr() == local.Addr() {
		return local
	}
	return seen
}
