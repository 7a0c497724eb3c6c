package directory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// maxPlaces bounds the relays of one introduction.
const maxPlaces = 8

// maxExcluded bounds the supernodes that a caller excludes as relays.
const maxExcluded = 64

// introduce passes a client's introduction to the callee's supernode, and
// chooses the relays where the client asks for some.
func (s *Server) introduce(ctx context.Context, peer *identity.Certificate, body []byte) (any, error) {
	var request introduceRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	in := &request.Introduction
	if string(in.Cert) != string(peer.DER) {
		return nil, link.Refused("%s introduces somebody else", peer.Name)
	}
	if !s.limits.allow(peer.Name) {
		return nil, link.Refused("%s introduces itself too often", peer.Name)
	}
	in.Places = nil
	if in.Kind == Through {
		places, err := s.choose(peer.Name, in.Callee, request.At, request.Relays, request.Exclude)
		if err != nil {
			return nil, err
		}
		in.Places = places
	}
	if request.At.Name == s.supernodes.Self().Name {
		if err := s.tell(ctx, in); err != nil {
			return nil, err
		}
	} else if err := s.supernodes.Call(ctx, request.At, methodPass, in, nil); err != nil {
		return nil, fmt.Errorf("tell the supernode of %s: %w", in.Callee, err)
	}
	s.log.Info("introduced", "caller", peer.Name, "callee", in.Callee, "relays", len(in.Places))
	return introduceAnswer{Places: in.Places}, nil
}

// choose picks relays at random among the supernodes that are neither of the
// users' own nor responsible for either, nor excluded by the caller.
func (s *Server) choose(caller, callee string, at Supernode, want int, exclude []string) ([]Place, error) {
	if len(exclude) > maxExcluded {
		return nil, link.Refused("%d supernodes excluded, at most %d", len(exclude), maxExcluded)
	}
	want = min(max(want, 1), maxPlaces)
	barred := append([]Supernode{s.supernodes.Self(), at}, s.supernodes.Responsible(caller, s.profile.Responsible)...)
	barred = append(barred, s.supernodes.Responsible(callee, s.profile.Responsible)...)
	free := slices.DeleteFunc(slices.Clone(s.supernodes.All()), func(one Supernode) bool {
		return slices.Contains(exclude, one.Name) ||
			slices.ContainsFunc(barred, func(b Supernode) bool { return b.Name == one.Name })
	})
	if len(free) == 0 {
		return nil, errors.New("no supernode is left that could relay")
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	var places []Place
	for _, one := range free[:min(want, len(free))] {
		places = append(places, Place{Relay: one, ID: relay.NewID()})
	}
	return places, nil
}

// pass tells a client of this supernode of a user, at the request of the
// user's supernode.
func (s *Server) pass(ctx context.Context, peer *identity.Certificate, body []byte) (any, error) {
	var in Introduction
	if err := wire.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	cert, err := s.caller(in.Cert)
	if err != nil {
		return nil, fmt.Errorf("introduction from %s: %w", peer.Name, err)
	}
	if !s.limits.allow(cert.Name) {
		return nil, link.Refused("%s introduces itself too often", cert.Name)
	}
	return nil, s.tell(ctx, &in)
}

// caller reads and verifies the certificate of an introduction.
func (s *Server) caller(der []byte) (*identity.Certificate, error) {
	cert, err := identity.Parse(der)
	if err != nil {
		return nil, err
	}
	if err := s.roots.Verify(cert, time.Now()); err != nil {
		return nil, err
	}
	if cert.Role != identity.RoleClient {
		return nil, fmt.Errorf("%s is a %s", cert.Name, cert.Role)
	}
	return cert, nil
}

// tell hands an introduction to a client of this supernode and waits until it
// has taken it.
func (s *Server) tell(ctx context.Context, in *Introduction) error {
	callee, ok := s.clients.Link(in.Callee)
	if !ok {
		return link.Refused("%s is not logged in here", in.Callee)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.profile.AnswerTimeout, fmt.Errorf("no answer from %s", in.Callee))
	defer cancel()
	if err := callee.Call(ctx, MethodIntroduced, in, nil); err != nil {
		return fmt.Errorf("tell %s: %w", in.Callee, err)
	}
	return nil
}

// locate says where this supernode's client is seen now: it asks the client,
// unless who wants to know asks too often.
func (s *Server) locate(ctx context.Context, _ netip.AddrPort, o *wire.Opened) any {
	var request locateRequest
	if o.Cert == nil || o.Decode(&request) != nil {
		return nil
	}
	client, online := s.clients.Link(request.Name)
	external, udp := s.clients.External(request.Name)
	if online && udp && s.limits.allow(o.Cert.Name) {
		external = s.where(ctx, client, external)
	}
	return locateAnswer{Online: online, External: external}
}

// knock tells this supernode's client that a user sent a datagram to it. The user
// says from where, as only it knows which port its box gave it for others; the
// address is the one that it is seen at.
func (s *Server) knock(ctx context.Context, from netip.AddrPort, o *wire.Opened) any {
	var request knockRequest
	if o.Cert == nil || o.Cert.Role != identity.RoleClient || o.Decode(&request) != nil {
		return nil
	}
	if !s.limits.allow(o.Cert.Name) {
		return knockAnswer{}
	}
	if request.From.Addr() != from.Addr() {
		request.From = from
	}
	err := s.tell(ctx, &Introduction{
		Kind: Open, Session: request.Session, Callee: request.Name, Cert: o.Cert.DER, UDP: request.From,
	})
	if err != nil {
		s.log.Info("knock not passed", "caller", o.Cert.Name, "callee", request.Name, "error", err)
	}
	return knockAnswer{Passed: err == nil}
}
