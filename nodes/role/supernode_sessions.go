package role

import (
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
)

const (
	// maxSessions bounds the users of one supernode.
	maxSessions = 1024
	// Tests that a session may ask for, per second and at once.
	testRate, testBurst = 1, 20
)

// session is a user at its own supernode.
type session struct {
	cert  *identity.Certificate
	link  *link.Conn
	tcp   netip.AddrPort // where the client listens, as seen from here
	tests *rate.Limiter

	mu  sync.Mutex
	udp netip.AddrPort // the client's UDP socket as seen from here; zero: not known
}

// UDP is where the client's datagrams come from, the zero value if none came.
func (s *session) UDP() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.udp
}

func (s *session) setUDP(a netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.udp = a
}

// sessions are a supernode's users, and its count of connections.
type sessions struct {
	mu     sync.Mutex
	byUser map[string]*session
	total  int
	byAddr map[netip.Addr]int
}

func newSessions() *sessions {
	return &sessions{byUser: map[string]*session{}, byAddr: map[netip.Addr]int{}}
}

// admit counts a connection, unless there are too many.
func (s *sessions) admit(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxConnections || s.byAddr[from] >= maxConnectionsAddress {
		return false
	}
	s.total++
	s.byAddr[from]++
	return true
}

func (s *sessions) dismiss(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.byAddr[from]--; s.byAddr[from] <= 0 {
		delete(s.byAddr, from)
	}
}

// attach makes a session of a link; an older one of the same user ends.
func (s *sessions) attach(cert *identity.Certificate, c *link.Conn, tcp netip.AddrPort) (*session, error) {
	key := membership.Normal(cert.Name)
	n := &session{cert: cert, link: c, tcp: tcp, tests: rate.NewLimiter(testRate, testBurst)}
	s.mu.Lock()
	old := s.byUser[key]
	if old == nil && len(s.byUser) >= maxSessions {
		s.mu.Unlock()
		return nil, errors.New("this supernode has too many users")
	}
	s.byUser[key] = n
	s.mu.Unlock()
	if old != nil && old.link != c {
		old.link.Close()
	}
	c.OnClose(func() {
		s.mu.Lock()
		if s.byUser[key] == n {
			delete(s.byUser, key)
		}
		s.mu.Unlock()
	})
	return n, nil
}

// of is the session of a user, nil if there is none here.
func (s *sessions) of(user string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byUser[membership.Normal(user)]
}

// on is the session of a link, nil if nobody is attached to it.
func (s *sessions) on(c *link.Conn) *session {
	cert := c.Peer()
	if cert == nil {
		return nil
	}
	if n := s.of(cert.Name); n != nil && n.link == c {
		return n
	}
	return nil
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byUser)
}
