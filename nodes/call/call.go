package call

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/freedom"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/media"
	"gauntlet/nodes/wire"
)

// Call is one end of a call.
type Call struct {
	service *Service
	id      directory.Session // the callee's is zero until it is invited
	peer    *identity.Certificate
	caller  bool
	record  *directory.Record // of the callee, at the caller's
	stream  *stream
	relayed atomic.Uint64 // packets that came over relays

	mu         sync.Mutex
	link       *link.Conn // signalling now
	signalling control.Path
	group      *reach.Group  // relays, nil without
	overGroup  bool          // the signalling goes over them
	grouped    chan struct{} // closed once group is set
	held       int           // relays that both ends hold, as last counted
	counted    bool          // it is settled which
	refilled   time.Time     // when there last were enough of them, or others were asked for
	refilling  bool
	noGroup    error // why there are no relays
	asking     bool  // for relays
	redeemed   bool  // the token of this end's offer was used
	invited    bool
	agreed     time.Time // when the other end's offer came; zero: not yet
	mine       offer
	theirs     offer
	checker    *checker     // nil without checks
	direct     *direct      // likewise
	freedom    *freedom.End // likewise
	named      *pair        // the pair for which the next two are known
	mineFree   bool         // no box filters what the other end sends to this one
	theirsFree bool         // and the other way round
	tcp        *route       // straight to the other end, nil without
	pair       *pair        // the best that works
	paths      paths
	opening    map[int]bool // legs that are being opened
	media      control.Path
	failures   []error
	down       bool // the call is taken down: nothing new may start
	hangingUp  bool // an end hangs up: media stays where it is

	checked chan struct{} // closed once it is known whether there is a direct path
	poke    chan struct{} // capacity 1: something to decide
	changed chan struct{} // closed, and made anew, with every change of the above
	adopted chan *route   // the other end's connection to this one's listener

	conn   *reach.Conn // the first connection: its exporter makes the keys
	ending sync.Once
	ended  chan struct{} // closed when the call is to end
	reason error         // why, set before ended is closed
	over   chan struct{} // closed when all is taken down
	tasks  sync.WaitGroup
}

// newCall makes an end of a call on a connection that it owns from now on.
func (s *Service) newCall(conn *reach.Conn, caller bool) (*Call, error) {
	state := conn.ConnectionState()
	keys, err := media.Export(state.ExportKeyingMaterial, conn.Dialled)
	if err != nil {
		return nil, err
	}
	stream, err := newStream(keys)
	if err != nil {
		return nil, err
	}
	c := &Call{
		service: s, peer: conn.Peer, caller: caller, conn: conn, signalling: conn.Path, stream: stream,
		paths: newPaths(), opening: map[int]bool{},
		grouped: make(chan struct{}), checked: make(chan struct{}), poke: make(chan struct{}, 1),
		changed: make(chan struct{}), adopted: make(chan *route, 1),
		ended: make(chan struct{}), over: make(chan struct{}),
	}
	if conn.Group != nil {
		c.group, c.overGroup, c.held = conn.Group, true, conn.Group.Len()
		close(c.grouped)
		c.group.StandBy(s.client.Profile.StandbyInterval)
	}
	c.open(conn)
	return c, nil
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

// Accepted is when this end had both offers: at the callee's, when it accepted.
// It is zero before.
func (c *Call) Accepted() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agreed
}

// Relayed is how many packets came to this end over relays so far, also over
// those that are gone.
func (c *Call) Relayed() uint64 { return c.relayed.Load() }

// Stats is what this end received so far.
func (c *Call) Stats() media.Stats { return c.stream.receiver.Stats() }

// Over is closed when the call is over and all of it taken down.
func (c *Call) Over() <-chan struct{} { return c.over }

// end makes the call end for a reason; the first one counts.
func (c *Call) end(reason error) {
	c.ending.Do(func() {
		c.reason = reason
		close(c.ended)
	})
}

// isOver says whether the call is to end.
func (c *Call) isOver() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// start runs f as part of the call, unless that is being taken down. Called
// with the lock held.
func (c *Call) start(f func()) bool {
	if c.down || c.isOver() {
		return false
	}
	c.tasks.Go(f)
	return true
}

// context is one that ends with the call, or after bound.
func (c *Call) context(bound time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		timer := time.NewTimer(bound)
		defer timer.Stop()
		select {
		case <-c.ended:
			cancel(errors.New("the call is over"))
		case <-timer.C:
			cancel(cause)
		case <-stop:
		}
	})
	return ctx, func() {
		close(stop)
		watching.Wait()
		cancel(nil)
	}
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

// handle serves the other end's signalling.
func (c *Call) handle(ctx context.Context, _ *link.Conn, method string, body []byte) (any, error) {
	switch {
	case method == methodHangup:
		return c.serveHangup(body)
	case method == noticeLegs:
		return nil, c.takeLegs(body)
	case method == noticeReport:
		return nil, c.takeReport(body)
	case c.caller:
		return nil, link.ErrUnknown
	case method == methodInvite:
		return c.serveInvite(ctx, body)
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
	}
	return nil, link.ErrUnknown
}

// serveInvite accepts a call.
func (c *Call) serveInvite(ctx context.Context, body []byte) (any, error) {
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
	err := c.prepare(ctx)
	if accept := c.service.config.Accept; err == nil && accept != nil {
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
	c.service.client.Log.Info("call accepted", "accepted", c.Accepted().Format(time.RFC3339Nano), "caller", c.peer.Name, "signalling", c.Signalling().Path)
	return inviteAnswer{Offer: c.mine}, nil
}

// prepare makes this end's offer, and answers the other end's checks from then
// on.
func (c *Call) prepare(ctx context.Context) error {
	mine, err := c.service.offer(ctx)
	if err != nil {
		return fmt.Errorf("say how to reach this end: %w", err)
	}
	client := c.service.client
	checks := mine.UDP && (client.Profile.Punch || mine.Public)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return errors.New("the call is over")
	}
	c.mine = mine
	if checks {
		c.direct = newDirect(client.Socket, c.take)
		c.checker = newChecker(client.Socket, mine, c.direct.hear, c.works)
	}
	return nil
}
