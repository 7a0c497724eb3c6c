// Package search is the search for a user with its authorization exchange:
// the caller finds the callee's record, reaches it, both prove who they are,
// and the caller's greeting is delivered whole and accepted, end to end.
//
// How the callee is reached depends on both ends' boxes, in this order:
//
//	callee public over UDP    datagrams straight to it            direct
//	caller public over UDP    the callee, told through the        reversed
//	                          supernodes, sends first
//	neither                   the caller sends (that is dropped   punched
//	                          at the callee's box, but opens the
//	                          caller's), the callee's supernode
//	                          tells it to send too; then relays
//	                          are held as a fallback
//	no UDP, or no answer      TCP, by package reach: straight,    direct, reversed
//	                          called back, or through relays      or relayed
//
// Two ends that supernodes don't reach may yet be free towards each other: while the
// greeting is under way over UDP, package freedom finds that out.
package search

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/freedom"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/identity"
)

// MaxGreeting bounds a greeting in bytes.
const MaxGreeting = 60 << 10

// Accept decides on a user's greeting, which it may keep; an error refuses it
// and says why.
type Accept func(from *identity.Certificate, greeting []byte) error

// Service is a client's search, both the caller's and the callee's part.
type Service struct {
	client *directory.Client
	reach  *reach.Reacher
	free   *freedom.Service
	accept Accept
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	attempts map[directory.Session]*attempt   // of this user's as a caller
	opening  map[directory.Session]*opening   // of others' that this user answers
	coming   map[[32]byte]*coming             // greetings of others, by certificate
	sending  map[directory.Session]chan<- ack // greetings of this user's
}

// New makes the service and takes its datagrams and connections. It lasts
// until ctx ends or Close is called.
func New(ctx context.Context, client *directory.Client, r *reach.Reacher, free *freedom.Service, accept Accept) *Service {
	s := &Service{
		client: client, reach: r, free: free, accept: accept,
		attempts: map[directory.Session]*attempt{},
		opening:  map[directory.Session]*opening{},
		coming:   map[[32]byte]*coming{},
		sending:  map[directory.Session]chan<- ack{},
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	client.Socket.Handle(kindOpen, s.handleOpen)
	client.Socket.Handle(kindHello, s.handleHello)
	client.Socket.Handle(kindChunk, s.handleChunk)
	client.Socket.Handle(kindAck, s.handleAck)
	r.HandleOpen(s.answerOpen)
	r.Handle(identity.ALPNSearch, s.serve)
	return s
}

// Close ends what the service does for others and waits for it.
func (s *Service) Close() {
	for _, kind := range []uint8{kindOpen, kindHello, kindChunk, kindAck} {
		s.client.Socket.Handle(kind, nil)
	}
	s.mu.Lock()
	s.cancel() // nothing is started any more
	s.mu.Unlock()
	s.tasks.Wait()
}

// Search finds a user, reaches it, and delivers the greeting. It returns the
// path that the greeting took, as this node believes. The error says what
// failed last on each way that was tried.
func (s *Service) Search(ctx context.Context, name string, greeting []byte) (*control.Path, error) {
	if len(greeting) > MaxGreeting {
		return nil, fmt.Errorf("search for %s: greeting of %d bytes, at most %d", name, len(greeting), MaxGreeting)
	}
	if name == s.client.Cert.Name {
		return nil, fmt.Errorf("search for %s: that is this user", name)
	}
	bound := s.client.Profile.SearchTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not done in %v", bound))
	defer cancel()
	record, err := s.client.Find(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	s.client.Log.Info("record found", "user", name, "supernode", record.Supernode.Name,
		"external", record.Reach.External, "public_udp", record.Reach.PublicUDP, "public_tcp", record.Reach.PublicTCP)
	path, overUDP := s.overUDP(ctx, record, greeting)
	if overUDP == nil {
		return path, nil
	}
	s.client.Log.Info("not reached over UDP", "user", name, "error", overUDP)
	path, overTCP := s.overTCP(ctx, record, greeting)
	if overTCP != nil {
		return nil, fmt.Errorf("search for %s: %w", name, errors.Join(overUDP, overTCP))
	}
	return path, nil
}

// overUDP tries what the two ends' boxes allow over UDP.
func (s *Service) overUDP(ctx context.Context, r *directory.Record, greeting []byte) (*control.Path, error) {
	mine := s.client.Reach()
	if !mine.UDP || !r.Reach.UDP {
		return nil, errors.New("UDP is blocked at an end")
	}
	s.client.Socket.Know(r.Certificate)
	session := directory.NewSession()
	path := control.Path{Legs: []control.Leg{{From: s.client.Cert.Name, To: r.Name(), Transport: "udp"}}}
	switch {
	case r.Reach.PublicUDP:
		path.Path = "direct"
		if err := s.greet(ctx, s.at(ctx, r), r.Certificate, session, greeting); err != nil {
			return nil, fmt.Errorf("direct: %w", err)
		}
	case mine.PublicUDP:
		s.client.See(ctx) // what is said of this end from here on is true
		from, err := s.await(ctx, r, session, nil, func(ctx context.Context) error {
			_, err := s.client.Introduce(ctx, r, directory.Open, session, identity.ALPNSearch, 0)
			return err
		})
		if err == nil {
			path.Path, err = s.greetFree(ctx, from, r.Certificate, session, greeting)
		}
		if err != nil {
			return nil, fmt.Errorf("reversed: %w", err)
		}
	case s.client.Profile.Punch:
		s.client.See(ctx)
		from, err := s.punch(ctx, r, session)
		if err == nil {
			path.Path, err = s.greetFree(ctx, from, r.Certificate, session, greeting)
		}
		if err != nil {
			return nil, fmt.Errorf("punched: %w", err)
		}
		path.Relays = s.fallback(ctx, r)
	default:
		return nil, errors.New("this profile punches no holes")
	}
	return &path, nil
}

// at is where a public callee is: in its record, unless a box translates its
// address. The binding may have expired since the record was published.
func (s *Service) at(ctx context.Context, r *directory.Record) netip.AddrPort {
	if r.Reach.External.Addr() == r.Reach.Listen.Addr() {
		return r.Reach.External
	}
	external, err := s.locate(ctx, r)
	if err != nil {
		s.client.Log.Info("user is where its record says, perhaps", "user", r.Name(), "error", err)
		return r.Reach.External
	}
	return external
}

// locate asks the callee's supernode where the callee is seen now.
func (s *Service) locate(ctx context.Context, r *directory.Record) (netip.AddrPort, error) {
	bound := s.client.Profile.UDPAnswer + s.client.Profile.PunchTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, errors.New("its supernode does not answer"))
	defer cancel()
	return s.client.Locate(ctx, r)
}

// punch has both ends send to each other, and returns where the callee is.
func (s *Service) punch(ctx context.Context, r *directory.Record, session directory.Session) (netip.AddrPort, error) {
	external, err := s.locate(ctx, r)
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.client.Log.Info("punching", "user", r.Name(), "at", external)
	return s.await(ctx, r, session, []netip.AddrPort{external}, func(ctx context.Context) error {
		return s.client.Knock(ctx, r, session)
	})
}

// fallback has relays held by both ends after a punched search, and returns
// how many are.
func (s *Service) fallback(ctx context.Context, r *directory.Record) int {
	group, err := s.reach.Group(ctx, r, reach.Hold, directory.NewSession(), s.client.Profile.SearchRelays)
	if err != nil {
		s.client.Log.Warn("no fallback over relays", "user", r.Name(), "error", err)
		return 0
	}
	held := group.Held(ctx)
	group.Hold(nil)
	return held
}
