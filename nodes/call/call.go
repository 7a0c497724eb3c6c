package call

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/media"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// Call is one end of a call.
type Call struct {
	service *Service
	id      directory.Session // the callee's is zero until it is invited
	peer    *identity.Certificate
	caller  bool
	record  *directory.Record // of the callee, at the caller's
	mine    offer

	mu         sync.Mutex
	link       *link.Conn // signalling now
	signalling control.Path
	group      *reach.Group  // relays, nil without
	overGroup  bool          // the signalling goes over them
	grouped    chan struct{} // closed once group is set
	invited    bool
	agreed     bool
	stream     *stream
	checker    *checker
	unanswer   func() // stops answering STUN
	checked    chan struct{}
	working    netip.AddrPort // the pair that was checked, valid after checked
	media      control.Path

	routed chan struct{} // capacity 1: another route was adopted
	down   bool          // the call is taken down: nothing new may start

	conn   *reach.Conn // the first connection: its exporter makes the keys
	ending sync.Once
	ended  chan struct{} // closed when the call is to end
	reason error         // why, set before ended is closed
	over   chan struct{} // closed when all is taken down
	tasks  sync.WaitGroup
}

// newCall makes an end of a call on a connection that it owns from now on.
func (s *Service) newCall(conn *reach.Conn, caller bool) *Call {
	mine := s.client.Reach()
	c := &Call{
		service: s, peer: conn.Peer, caller: caller, conn: conn, signalling: conn.Path,
		mine: newOffer(s.client.Socket, s.client.Network,
			directReach{udp: mine.UDP, public: mine.PublicUDP, external: mine.External}),
		grouped: make(chan struct{}), checked: make(chan struct{}), routed: make(chan struct{}, 1),
		ended: make(chan struct{}), over: make(chan struct{}),
	}
	if conn.Group != nil {
		c.group, c.overGroup = conn.Group, true
		close(c.grouped)
		c.group.StandBy(s.client.Profile.StandbyInterval)
	}
	c.open(conn)
	return c
}

// open runs the signalling on a connection.
func (c *Call) open(conn *reach.Conn) {
	p := c.service.client.Profile
	// Its life is bounded by run, which closes it and waits.
	l := link.New(context.WithoutCancel(c.service.ctx), conn, c.peer, c.handle)
	l.KeepAlive(p.SignalKeepAlive, p.SignalTimeout-p.SignalKeepAlive)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
}

// signal is the signalling connection of the moment.
func (c *Call) signal() *link.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// ID names the call.
func (c *Call) ID() directory.Session { return c.id }

// Signalling is the path of the signalling now, as this end believes.
func (c *Call) Signalling() control.Path {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signalling
}

// Media is the path of the media now, as this end believes.
func (c *Call) Media() control.Path {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.media
}

// Stats is what this end received so far.
func (c *Call) Stats() media.Stats {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if s == nil {
		return media.Stats{}
	}
	return s.receiver.Stats()
}

// Over is closed when the call is over and all of it taken down.
func (c *Call) Over() <-chan struct{} { return c.over }

// end makes the call end for a reason; the first one counts.
func (c *Call) end(reason error) {
	c.ending.Do(func() {
		c.reason = reason
		close(c.ended)
	})
}

// abandon takes down a call that never ran.
func (c *Call) abandon() {
	c.end(errors.New("abandoned"))
	c.run()
}

// run keeps the signalling up until the call ends, and takes the call down.
func (c *Call) run() {
	defer close(c.over)
	if !c.caller {
		patience := time.AfterFunc(c.service.client.Profile.AnswerTimeout, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.invited {
				c.end(errors.New("no invite came"))
			}
		})
		defer patience.Stop()
	}
	for c.watch() {
	}
	c.takeDown()
}

// agree takes the other end's offer, makes the media keys, and gets ready for
// checks.
func (c *Call) agree(theirs offer) error {
	state := c.conn.ConnectionState()
	keys, err := media.Export(state.ExportKeyingMaterial, c.conn.Dialled)
	if err != nil {
		return err
	}
	stream, err := newStream(keys)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agreed || c.down {
		return errors.New("the call is over, or agreed on already")
	}
	c.agreed = true
	c.stream = stream
	p := c.service.client.Profile
	if !c.mine.UDP || !theirs.UDP || !(p.Punch || c.mine.Public && theirs.Public) {
		close(c.checked)
		return nil
	}
	c.checker = newChecker(c.service.client.Socket, c.mine, theirs, p.CheckInterval)
	c.unanswer = c.checker.begin()
	c.tasks.Go(c.check)
	return nil
}

// check runs the checks of candidates.
func (c *Call) check() {
	defer close(c.checked)
	bound := c.service.client.Profile.PunchTimeout
	ctx, cancel := context.WithTimeoutCause(context.Background(), bound, fmt.Errorf("not in %v", bound))
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	c.tasks.Go(func() {
		select {
		case <-c.ended:
			cancel()
		case <-stop:
		}
	})
	working, err := c.checker.run(ctx)
	if err != nil {
		c.service.client.Log.Info("no direct media path", "peer", c.peer.Name, "error", err)
		return
	}
	c.working = working
}

// handle serves the other end's signalling.
func (c *Call) handle(ctx context.Context, _ *link.Conn, method string, body []byte) (any, error) {
	switch {
	case method == methodHangup:
		return c.serveHangup(body)
	case c.caller:
		return nil, link.ErrUnknown
	case method == methodInvite:
		return c.serveInvite(body)
	case method == methodResume:
		var request resumeRequest
		if err := wire.Unmarshal(body, &request); err != nil {
			return nil, err
		}
		c.mu.Lock()
		known := c.id == request.Call
		c.mu.Unlock()
		if !known {
			return nil, link.Refused("this is another call")
		}
		return struct{}{}, nil
	case method == methodMedia:
		return c.serveMedia(ctx, body)
	}
	return nil, link.ErrUnknown
}

// serveInvite accepts a call.
func (c *Call) serveInvite(body []byte) (any, error) {
	var request inviteRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if len(request.Subject) > MaxSubject {
		return nil, link.Refused("subject of %d bytes, at most %d", len(request.Subject), MaxSubject)
	}
	c.mu.Lock()
	again := c.invited
	c.invited = true
	c.mu.Unlock()
	if again {
		return nil, link.Refused("invited already")
	}
	err := error(nil)
	if accept := c.service.config.Accept; accept != nil {
		err = accept(c.peer, request.Subject)
	}
	if err == nil {
		c.mu.Lock()
		c.id = request.Call
		c.mu.Unlock()
		if err = c.service.add(c); err == nil {
			err = c.agree(request.Offer)
		}
	}
	if err != nil {
		c.end(err)
		return nil, link.Refused("%v", err)
	}
	c.service.client.Log.Info("call accepted", "caller", c.peer.Name, "signalling", c.Signalling().Path)
	return inviteAnswer{Offer: c.mine}, nil
}

// serveMedia goes the way that the caller has decided on.
func (c *Call) serveMedia(ctx context.Context, body []byte) (any, error) {
	var request mediaRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	c.mu.Lock()
	ready := c.agreed
	c.mu.Unlock()
	if !ready {
		return nil, link.Refused("no invite came")
	}
	r, err := c.route(ctx, request)
	if err != nil {
		return mediaAnswer{Why: err.Error()}, nil
	}
	if !c.adopt(r, relay.Transport(0)) {
		return mediaAnswer{Why: "the call is over"}, nil
	}
	return mediaAnswer{Ready: true, Transport: r.transport}, nil
}
