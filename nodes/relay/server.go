package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// PacketWriter sends a datagram from the supernode's UDP socket. It must not
// keep the packet.
type PacketWriter interface {
	WriteTo(packet []byte, to netip.AddrPort) error
}

// Server is the supernode's half.
type Server struct {
	config Config
	out    PacketWriter

	mu       sync.RWMutex
	closed   bool
	sessions map[ID]*session
	perUser  map[User]int
	tokens   map[Token]grant
	sources  map[netip.AddrPort]*end // of media datagrams
}

// grant is what a token that was given opens.
type grant struct {
	end       *end
	transport Transport
	expires   time.Time
}

// session is two ends, or one that waits for the other.
type session struct {
	id    ID
	users [2]User
	ends  [2]*end // ends[1] is nil until the session is paired
}

// NewServer makes a relay whose media datagrams leave through out.
func NewServer(config Config, out PacketWriter) *Server {
	return &Server{
		config:   config,
		out:      out,
		sessions: map[ID]*session{},
		perUser:  map[User]int{},
		tokens:   map[Token]grant{},
		sources:  map[netip.AddrPort]*end{},
	}
}

// Sessions is the number of sessions that the relay holds, paired or not.
func (s *Server) Sessions() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.sessions)
}

// Close ends all sessions and refuses new ones. The calls of ServeLink and
// ServeMedia return by themselves soon after.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	var ends []*end
	for _, session := range s.sessions {
		for _, e := range session.ends {
			if e != nil {
				ends = append(ends, e)
			}
		}
	}
	s.mu.Unlock()
	for _, e := range ends {
		e.stop(errors.New("the relay closes"))
	}
}

// ServeLink serves one relay connection, over which TLS proved the user, until
// it ends. It closes the connection. The error says why it ended; one end
// leaving ends the session for both.
func (s *Server) ServeLink(ctx context.Context, conn net.Conn, user User) error {
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(s.config.JoinTimeout))
	buffer := new(frameBuffer)
	kind, body, _, err := buffer.read(conn)
	if err != nil {
		return fmt.Errorf("await join: %w", err)
	}
	if kind != frameJoin {
		return fmt.Errorf("%w: type %d before join", errFrame, kind)
	}
	id, peer, err := parseJoin(body)
	if err != nil {
		return err
	}
	e := newEnd(s, conn, user)
	if err := s.join(e, id, peer); err != nil {
		e.refuse(err)
		return fmt.Errorf("join relay session: %w", err)
	}
	defer s.leave(e)
	return e.run(ctx, buffer)
}

// join enters an end in its session.
func (s *Server) join(e *end, id ID, peer User) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the relay closes")
	}
	if e.user == peer {
		return errors.New("both ends are the same user")
	}
	if s.perUser[e.user] >= s.config.MaxPerUser {
		return fmt.Errorf("user has %d sessions already", s.config.MaxPerUser)
	}
	other := s.sessions[id]
	switch {
	case other == nil:
		if len(s.sessions) >= s.config.MaxSessions {
			return fmt.Errorf("relay has %d sessions already", s.config.MaxSessions)
		}
		e.session = &session{id: id, users: [2]User{e.user, peer}, ends: [2]*end{e, nil}}
		s.sessions[id] = e.session
	case other.ends[1] != nil || other.users != [2]User{peer, e.user}:
		return errors.New("session is of other users")
	default:
		e.session = other
		other.ends[1] = e
		first := other.ends[0]
		e.peer, first.peer = first, e
		close(e.paired)
		close(first.paired)
	}
	s.perUser[e.user]++
	return nil
}

// leave takes an end and all that it holds out of the server, and ends its
// peer's connection too.
func (s *Server) leave(e *end) {
	s.mu.Lock()
	if s.sessions[e.session.id] == e.session {
		delete(s.sessions, e.session.id)
	}
	if s.perUser[e.user]--; s.perUser[e.user] == 0 {
		delete(s.perUser, e.user)
	}
	for token, grant := range s.tokens {
		if grant.end == e {
			delete(s.tokens, token)
		}
	}
	if e.source.IsValid() && s.sources[e.source] == e {
		delete(s.sources, e.source)
	}
	peer := e.peer
	s.mu.Unlock()
	e.setLeg(nil)
	if peer != nil {
		peer.stop(errors.New("the other end left"))
	}
}

// grant makes a token for a media leg of an end. An end has one unused token
// at most; a new one replaces it.
func (s *Server) grant(e *end, transport Transport) Token {
	var token Token
	rand.Read(token[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, e.token)
	e.token = token
	s.tokens[token] = grant{end: e, transport: transport, expires: time.Now().Add(s.config.JoinTimeout)}
	return token
}

// redeem takes a token that is still good for the transport out of the server.
// A token that comes over the wrong transport is spent all the same.
func (s *Server) redeem(token Token, transport Transport) (*end, error) {
	grant, ok := s.tokens[token]
	delete(s.tokens, token)
	switch {
	case !ok:
		return nil, errors.New("unknown or spent media token")
	case time.Now().After(grant.expires):
		return nil, errors.New("media token is too old")
	case grant.transport != transport:
		return nil, fmt.Errorf("media token for %v came over %v", grant.transport, transport)
	}
	return grant.end, nil
}
