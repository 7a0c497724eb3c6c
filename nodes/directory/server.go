package directory

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

// Supernodes is what a supernode knows of the others.
type Supernodes interface {
	// Self is this supernode.
	Self() Supernode
	// Responsible are the n supernodes, this one perhaps among them, that
	// rendezvous hashing gives for a name.
	Responsible(name string, n int) []Supernode
	// All are the living ones, this one among them.
	All() []Supernode
	// Call makes a request to another one over a link with mutual TLS.
	Call(ctx context.Context, to Supernode, method string, request, answer any) error
}

// Clients is what a supernode knows of its own clients.
type Clients interface {
	// Link is the link to a client that is logged in.
	Link(name string) (*link.Conn, bool)
	// External is the client's UDP address as this supernode sees it now.
	External(name string) (netip.AddrPort, bool)
}

// Server is a supernode's half of the directory.
type Server struct {
	roots      identity.Roots
	profile    *profile.Profile
	store      *Store
	supernodes Supernodes
	clients    Clients
	log        *slog.Logger
	limits     *limiter
}

// ServerConfig is what a supernode's half needs.
type ServerConfig struct {
	Roots      identity.Roots
	Profile    *profile.Profile
	Supernodes Supernodes
	Clients    Clients
	Socket     *datagram.Socket
	Log        *slog.Logger // nil: nothing is logged
}

// NewServer makes a supernode's half and takes its datagrams from the socket.
func NewServer(c ServerConfig) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		roots: c.Roots, profile: c.Profile, store: NewStore(c.Roots, c.Profile.RecordLife),
		supernodes: c.Supernodes, clients: c.Clients, log: c.Log, limits: newLimiter(),
	}
	c.Socket.Handle(kindQuery, s.queryOverUDP)
	c.Socket.Handle(kindLocate, s.locate)
	c.Socket.Handle(kindKnock, s.knock)
	return s
}

// Methods are those that Serve answers.
func Methods() []string {
	return []string{methodResponsible, methodPublish, methodQuery, methodIntroduce, methodStore, methodFetch, methodPass}
}

// Serve answers a request of the directory's that came over a link, from a
// client of this supernode or from another supernode. handled is false for a
// method that is not the directory's.
func (s *Server) Serve(ctx context.Context, c *link.Conn, method string, body []byte) (answer any, handled bool, err error) {
	serve, ok := map[string]func(context.Context, *identity.Certificate, []byte) (any, error){
		methodResponsible: s.responsible,
		methodPublish:     s.publish,
		methodQuery:       s.queryOverLink,
		methodIntroduce:   s.introduce,
		methodStore:       s.keep,
		methodFetch:       s.fetch,
		methodPass:        s.pass,
	}[method]
	if !ok {
		return nil, false, nil
	}
	role := identity.RoleClient
	switch method {
	case methodStore, methodFetch, methodPass:
		role = identity.RoleSupernode
	}
	peer := c.Peer()
	if peer == nil || peer.Role != role {
		return nil, true, link.Refused("%s is for a %s that proved who it is", method, role)
	}
	answer, err = serve(ctx, peer, body)
	return answer, true, err
}

// Knows says whether this supernode has a user's record.
func (s *Server) Knows(name string) bool {
	_, ok := s.store.Get(name, time.Now())
	return ok
}

// responsible names the supernodes that keep a user's record, most responsible
// first.
func (s *Server) responsible(_ context.Context, _ *identity.Certificate, body []byte) (any, error) {
	var request nameRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	want := min(max(request.Want, 1), s.profile.Asked+s.profile.AskedMore)
	return supernodesAnswer{List: s.supernodes.Responsible(request.Name, want)}, nil
}

// publish stores a client's record on the supernodes responsible for it.
func (s *Server) publish(ctx context.Context, peer *identity.Certificate, body []byte) (any, error) {
	var request signedRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	r, err := request.Record.Open(s.roots)
	if err != nil {
		return nil, err
	}
	if r.Certificate.Hash() != peer.Hash() {
		return nil, link.Refused("%s publishes a record of %s", peer.Name, r.Name())
	}
	stored, err := each(ctx, s.profile.ConnectTimeout, s.supernodes.Responsible(peer.Name, s.profile.Responsible),
		func(ctx context.Context, to Supernode) error {
			if to.Name == s.supernodes.Self().Name {
				return s.store.Put(request.Record, time.Now())
			}
			return s.supernodes.Call(ctx, to, methodStore, request, nil)
		})
	if stored == 0 {
		return nil, fmt.Errorf("store record of %s: %w", peer.Name, err)
	}
	s.log.Info("record stored", "user", peer.Name, "sequence", r.Sequence, "supernodes", stored)
	return publishAnswer{Stored: stored}, nil
}

// keep stores a record at another supernode's request.
func (s *Server) keep(_ context.Context, _ *identity.Certificate, body []byte) (any, error) {
	var request signedRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	return nil, s.store.Put(request.Record, time.Now())
}

// lookup answers a query from this supernode's own store.
func (s *Server) lookup(name string) recordAnswer {
	signed, ok := s.store.Get(name, time.Now())
	return recordAnswer{Found: ok, Record: signed}
}

// fetch is lookup for another supernode.
func (s *Server) fetch(_ context.Context, _ *identity.Certificate, body []byte) (any, error) {
	var request nameRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	return s.lookup(request.Name), nil
}

// queryOverUDP is lookup for any user.
func (s *Server) queryOverUDP(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
	var request nameRequest
	if o.Cert == nil || o.Decode(&request) != nil {
		return nil
	}
	return s.lookup(request.Name)
}

// queryOverLink asks the responsible supernodes for a client that has no UDP.
func (s *Server) queryOverLink(ctx context.Context, _ *identity.Certificate, body []byte) (any, error) {
	var request nameRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	want := min(max(request.Want, 1), s.profile.Asked+s.profile.AskedMore)
	var newest newest
	answered, err := each(ctx, s.profile.UDPAnswer, s.supernodes.Responsible(request.Name, want),
		func(ctx context.Context, to Supernode) error {
			answer := s.lookup(request.Name)
			if to.Name != s.supernodes.Self().Name {
				if err := s.supernodes.Call(ctx, to, methodFetch, request, &answer); err != nil {
					return err
				}
			}
			newest.offer(answer, s.roots)
			return nil
		})
	if answered == 0 {
		return nil, fmt.Errorf("ask for %s: %w", request.Name, err)
	}
	return newest.answer(), nil
}
