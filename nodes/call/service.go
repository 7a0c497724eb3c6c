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
	"gauntlet/nodes/directory/freedom"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/identity"
)

// maxCalls bounds the calls that a user is in.
const maxCalls = 8

// Summary is what an end knows of a call that is over.
type Summary struct {
	Call     directory.Session
	Peer     string
	Caller   bool // this end was
	Media    control.Path
	Sent     int // media packets
	Received int // media packets, once each, in time or not
	Rejected int // packets that were none of the other end's, or changed on their way, or came twice
	Reason   error
}

// Config is what a client's calls need.
type Config struct {
	Client *directory.Client
	Reach  *reach.Reacher
	Free   *freedom.Service
	// Accept decides on another user's call by its subject; nil accepts all.
	Accept func(from *identity.Certificate, subject []byte) error
	// Ended is told of every call that is over; nil: nobody is.
	Ended func(Summary)
}

// Service is a client's calls, as caller and as callee.
type Service struct {
	config Config
	client *directory.Client
	reach  *reach.Reacher
	free   *freedom.Service
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu    sync.Mutex
	calls map[directory.Session]*Call
	past  []Summary                    // of the last calls, the newest at the end
	asked map[netip.AddrPort]time.Time // STUN servers, for predictions, and when
	last  netip.AddrPort               // that a box in sequence gave; zero: none is known to
}

// maxPast bounds the calls that are remembered after their end.
const maxPast = 8

// New makes the service and takes the connections of callers. It lasts until
// ctx ends or Close is called.
func New(ctx context.Context, config Config) *Service {
	s := &Service{config: config, client: config.Client, reach: config.Reach, free: config.Free, calls: map[directory.Session]*Call{}, asked: map[netip.AddrPort]time.Time{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.reach.Handle(identity.ALPNCall, s.serve)
	s.reach.HandleGroup(relaysPurpose, s.takeGroup)
	s.reach.HandleTold(func(purpose string) {
		if purpose == identity.ALPNCall {
			s.look() // by the time that the caller is connected it is known
		}
	})
	return s
}

// Close ends all calls and waits for what they started.
func (s *Service) Close() {
	s.mu.Lock()
	s.cancel()
	calls := make([]*Call, 0, len(s.calls))
	for _, c := range s.calls {
		calls = append(calls, c)
	}
	s.mu.Unlock()
	for _, c := range calls {
		c.end(errors.New("this node stops"))
	}
	s.tasks.Wait()
}

// Find returns a call that is going on.
func (s *Service) Find(id directory.Session) (*Call, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.calls[id]
	return c, ok
}

// add enters a call that now has its name.
func (s *Service) add(c *Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, known := s.calls[c.id]; {
	case s.ctx.Err() != nil:
		return errors.New("this node stops")
	case known:
		return errors.New("there is such a call already")
	case len(s.calls) >= maxCalls:
		return fmt.Errorf("busy with %d calls", maxCalls)
	}
	s.calls[c.id] = c
	return nil
}

// Past returns what is known of a call that ended lately.
func (s *Service) Past(id directory.Session) (Summary, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, summary := range s.past {
		if summary.Call == id {
			return summary, true
		}
	}
	return Summary{}, false
}

// remove takes out a call that is over, and remembers it for a while.
func (s *Service) remove(c *Call, summary Summary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[c.id] != c {
		return
	}
	delete(s.calls, c.id)
	if s.past = append(s.past, summary); len(s.past) > maxPast {
		s.past = s.past[1:]
	}
}

// takeGroup takes the relays of a call whose signalling needs none.
func (s *Service) takeGroup(_ context.Context, g *reach.Group) {
	c, ok := s.Find(g.Session())
	if !ok || c.caller || c.peer.Hash() != g.Peer().Hash() {
		g.Close()
		return
	}
	if !c.giveGroup(g) {
		g.Close()
	}
}

// Call calls a user. It returns once both ends are connected, the media path
// is decided, media flows, and it is settled which relays both hold. The error
// says in words what failed.
func (s *Service) Call(ctx context.Context, name string, subject []byte) (*Call, error) {
	if len(subject) > MaxSubject {
		return nil, fmt.Errorf("call %s: subject of %d bytes, at most %d", name, len(subject), MaxSubject)
	}
	if name == s.client.Cert.Name {
		return nil, fmt.Errorf("call %s: that is this user", name)
	}
	c, err := s.invite(ctx, name, subject)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", name, err)
	}
	if err := c.settle(ctx); err != nil {
		c.end(err)
		<-c.over
		return nil, fmt.Errorf("call %s: %w", name, err)
	}
	return c, nil
}

// invite finds and connects to the callee and has it accept.
func (s *Service) invite(ctx context.Context, name string, subject []byte) (*Call, error) {
	bound := s.client.Profile.CallTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not done in %v", bound))
	defer cancel()
	s.look()
	record, err := s.client.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	conn, err := s.reach.Connect(ctx, record, identity.ALPNCall, s.client.Profile.Relays)
	if err != nil {
		return nil, err
	}
	c, err := s.newCall(conn, true)
	if err != nil {
		closeConn(conn)
		return nil, err
	}
	c.record = record
	c.id = directory.NewSession()
	if err := s.add(c); err != nil {
		c.abandon()
		return nil, err
	}
	s.tasks.Go(c.run)
	err = c.prepare(ctx)
	var answer inviteAnswer
	if err == nil {
		request := inviteRequest{Call: c.id, Subject: subject, Offer: c.mine}
		err = c.signal().Call(ctx, methodInvite, request, &answer)
	}
	if err == nil {
		err = c.agree(answer.Offer)
	}
	if err != nil {
		c.end(err)
		<-c.over
		return nil, err
	}
	s.client.Log.Info("call accepted", "callee", name, "signalling", conn.Path.Path)
	return c, nil
}

// serve is a callee's end of a call, from the connection to the end.
func (s *Service) serve(ctx context.Context, conn *reach.Conn) {
	c, err := s.newCall(conn, false)
	if err != nil {
		s.client.Log.Warn("call not taken", "caller", conn.Peer.Name, "error", err)
		closeConn(conn)
		return
	}
	defer context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })()
	c.run()
}

// closeConn closes a connection that became no call, and its relays.
func closeConn(conn *reach.Conn) {
	conn.Close()
	if conn.Group != nil {
		conn.Group.Close()
	}
}
