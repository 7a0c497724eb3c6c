package login

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/wire"
)

// enrolment is the message of methodEnrol. The key to be certified is the one
// of the TLS handshake.
type enrolment struct {
	_    struct{} `cbor:",toarray"`
	Addr netip.AddrPort
	Seal []byte
}

// Supernode is a default supernode that the login server was told to certify.
type Supernode struct {
	Name string
	Addr netip.AddrPort
	Sign ed25519.PublicKey
}

// Enrol gets this supernode's certificate from the login server over nc, which
// it closes. The TLS handshake proves possession of the key.
func Enrol(ctx context.Context, nc net.Conn, keys *identity.Keys, name string, addr netip.AddrPort, roots identity.Roots) (*identity.Certificate, error) {
	config, err := identity.EnrolTLS(keys, name, roots)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("enrol: %w", err)
	}
	c, err := dial(ctx, nc, config, roots)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	defer c.Wait()
	defer c.Close()
	var a answer
	if err := c.Call(ctx, methodEnrol, enrolment{Addr: addr, Seal: keys.Seal.PublicKey().Bytes()}, &a); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	cert, err := checkIssued(a.Cert, keys, roots, identity.RoleSupernode)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if cert.Addr != addr {
		return nil, fmt.Errorf("enrol: the certificate is for %s, not %s", cert.Addr, addr)
	}
	return cert, nil
}

// checkIssued checks that a certificate is the authority's and for these keys.
func checkIssued(der []byte, keys *identity.Keys, roots identity.Roots, role string) (*identity.Certificate, error) {
	cert, err := identity.Parse(der)
	if err != nil {
		return nil, err
	}
	if err := roots.Verify(cert, time.Now()); err != nil {
		return nil, err
	}
	if cert.Role != role || !cert.Sign.Equal(keys.Public()) || !slices.Equal(cert.Seal.Bytes(), keys.Seal.PublicKey().Bytes()) {
		return nil, errors.New("the certificate is for another role or other keys")
	}
	return cert, nil
}

// enrol serves methodEnrol for a client that has proved to have this key.
func (s *Server) enrol(shown ed25519.PublicKey, body []byte) (*answer, error) {
	var e enrolment
	if err := wire.Unmarshal(body, &e); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.cfg.Supernodes, func(n Supernode) bool { return n.Sign.Equal(shown) })
	if i < 0 {
		return nil, link.Refused("no supernode is known with this key")
	}
	n := s.cfg.Supernodes[i]
	if e.Addr != n.Addr {
		return nil, link.Refused("supernode %s is known at %s, not %s", n.Name, n.Addr, e.Addr)
	}
	seal, err := ecdh.X25519().NewPublicKey(e.Seal)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	cert, err := s.cfg.Authority.Issue(identity.Subject{Name: n.Name, Role: identity.RoleSupernode, Addr: n.Addr,
		Sign: n.Sign, Seal: seal}, s.cfg.Profile.SupernodeValid)
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Info("supernode enrolled", "name", n.Name, "addr", n.Addr)
	return &answer{Cert: cert.DER}, nil
}
