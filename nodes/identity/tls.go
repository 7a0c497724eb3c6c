package identity

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Names of protocols for ALPN (RFC 7301), one for each use of a TLS connection.
const (
	ALPNLink   = "gauntlet-link/1"
	ALPNGossip = "gauntlet-gossip/1"
	ALPNRelay  = "gauntlet-relay/1"
	ALPNLogin  = "gauntlet-login/1"
	ALPNCall   = "gauntlet-call/1"
	ALPNSearch = "gauntlet-search/1"
	ALPNProbe  = "gauntlet-probe/1"
)

// Authentication is what a TLS server asks of its clients.
type Authentication int

const (
	// Optional takes a client without a certificate (before login), and
	// verifies one that is shown.
	Optional Authentication = iota
	// Required refuses a client without a verified certificate.
	Required
	// Possession asks for any certificate and verifies only that the client
	// has its key: the caller looks at the key itself. For enrolment.
	Possession
)

// base holds what all configurations share. X25519 alone is offered: a hybrid
// post-quantum share would add 1.2 KB to each hello (ML-KEM-768, FIPS 203) and
// a whole handshake is to stay under 4 KB each way. Session tickets are off,
// as a session is bound to certificates that must be looked at each time.
func base(alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519},
		NextProtos:             alpn,
		SessionTicketsDisabled: true,
	}
}

func pair(keys *Keys, der []byte) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: keys.Sign}
}

// peer reads the one certificate that the other side showed.
func peer(state tls.ConnectionState) (*Certificate, error) {
	if len(state.PeerCertificates) != 1 {
		return nil, fmt.Errorf("peer showed %d certificates, want 1", len(state.PeerCertificates))
	}
	return fromX509(state.PeerCertificates[0])
}

// verify checks the peer's certificate and role, and the protocol.
func verify(state tls.ConnectionState, roots Roots, now time.Time, roles []string) error {
	if state.NegotiatedProtocol == "" {
		return errors.New("peer speaks none of the offered protocols")
	}
	c, err := peer(state)
	if err != nil {
		return err
	}
	if err := roots.Verify(c, now); err != nil {
		return err
	}
	if !slices.Contains(roles, c.Role) {
		return fmt.Errorf("%s is a %s, want %v", c.Name, c.Role, roles)
	}
	return nil
}

// ClientTLS is the configuration of a TLS 1.3 client. The server must show a
// certificate of the pinned authority with one of the roles; system roots and
// host names play no part. cert is nil before login.
func ClientTLS(keys *Keys, cert *Certificate, roots Roots, alpn string, roles ...string) *tls.Config {
	c := base([]string{alpn})
	// Names are no part of this overlay's trust: VerifyConnection does all of
	// the verification, against the pinned authority.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, roots, time.Now(), roles) }
	if cert != nil {
		c.Certificates = []tls.Certificate{pair(keys, cert.DER)}
	}
	return c
}

// ServerTLS is the configuration of a TLS 1.3 server that shows cert and
// takes clients with one of the roles.
func ServerTLS(keys *Keys, cert *Certificate, roots Roots, auth Authentication, alpn []string, roles ...string) *tls.Config {
	c := base(alpn)
	c.Certificates = []tls.Certificate{pair(keys, cert.DER)}
	c.ClientAuth = tls.RequestClientCert
	if auth == Required {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		switch {
		case s.NegotiatedProtocol == "":
			return errors.New("client speaks none of the offered protocols")
		case auth == Possession, auth == Optional && len(s.PeerCertificates) == 0:
			return nil
		}
		return verify(s, roots, time.Now(), roles)
	}
	return c
}

// EnrolTLS is the configuration with which a node that has no certificate yet
// proves possession of its key: it shows a certificate that it signed itself.
func EnrolTLS(keys *Keys, name string, roots Roots) (*tls.Config, error) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, keys.Public(), keys.Sign)
	if err != nil {
		return nil, fmt.Errorf("sign own certificate: %w", err)
	}
	c := ClientTLS(keys, nil, roots, ALPNLogin, RoleLogin)
	c.Certificates = []tls.Certificate{pair(keys, der)}
	return c, nil
}

// PeerCertificate is the verified certificate of the other side of a finished
// handshake, nil where it showed none or one of its own making.
func PeerCertificate(state tls.ConnectionState, roots Roots) *Certificate {
	c, err := peer(state)
	if err != nil || roots.Verify(c, time.Now()) != nil {
		return nil
	}
	return c
}
