package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// MaxCertificate bounds the DER of a certificate in bytes, so that one fits a
// sealed datagram beside a message. A client's takes about 650 bytes, a
// supernode's about 350.
const MaxCertificate = 800

// Certificate binds a name and a role to keys. It is an X.509 v3 certificate
// (RFC 5280) with an Ed25519 subject key (RFC 8410) and one private extension.
type Certificate struct {
	DER       []byte
	Name      string // the user, or the supernode's node name
	Role      string // RoleClient, RoleSupernode or RoleLogin
	Addr      netip.AddrPort
	Sign      ed25519.PublicKey
	Seal      *ecdh.PublicKey // X25519
	RSA       *rsa.PublicKey  // of a client only
	NotBefore time.Time
	NotAfter  time.Time

	parsed *x509.Certificate
}

// Parse reads a certificate. It checks its form, not who signed it: that is
// [Roots.Verify].
func Parse(der []byte) (*Certificate, error) {
	if len(der) > MaxCertificate {
		return nil, fmt.Errorf("parse certificate: %d bytes, at most %d", len(der), MaxCertificate)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return fromX509(x)
}

func fromX509(x *x509.Certificate) (*Certificate, error) {
	if len(x.Raw) > MaxCertificate {
		return nil, fmt.Errorf("parse certificate: %d bytes, at most %d", len(x.Raw), MaxCertificate)
	}
	sign, ok := x.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("parse certificate: subject key is %T, not Ed25519", x.PublicKey)
	}
	c := &Certificate{DER: x.Raw, Name: x.Subject.CommonName, Sign: sign,
		NotBefore: x.NotBefore, NotAfter: x.NotAfter, parsed: x}
	if err := CheckName(c.Name); err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	for _, e := range x.Extensions {
		if e.Id.Equal(extensionID) {
			if err := c.parseExtension(e.Value); err != nil {
				return nil, fmt.Errorf("parse certificate: %w", err)
			}
			return c, nil
		}
	}
	return nil, errors.New("parse certificate: no extension with the overlay's keys")
}

// Hash identifies the certificate: the SHA-256 of its DER. As the authority
// chooses the serial number, nobody can grind a hash.
func (c *Certificate) Hash() [32]byte { return sha256.Sum256(c.DER) }

// maxName bounds a name in bytes.
const maxName = 64

// CheckName says whether a name may stand in a certificate: 1 to 64 letters,
// digits, dots, hyphens or underscores.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %.80q: %d bytes long, want 1 to %d", name, len(name), maxName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
		default:
			return fmt.Errorf("name %q: character %q is not allowed", name, r)
		}
	}
	return nil
}

// Roots is the one authority that a node believes.
type Roots struct {
	ca  *x509.Certificate
	rsa *rsa.PublicKey
}

// Public is what everybody pins of the login server.
type Public struct {
	CA  []byte `json:"ca"`  // DER of the authority's certificate
	RSA []byte `json:"rsa"` // PKIX DER of the key that session keys are wrapped with
}

// Roots reads the pinned keys.
func (p Public) Roots() (Roots, error) {
	ca, err := x509.ParseCertificate(p.CA)
	if err != nil {
		return Roots{}, fmt.Errorf("parse the authority's certificate: %w", err)
	}
	if _, ok := ca.PublicKey.(ed25519.PublicKey); !ok || !ca.IsCA {
		return Roots{}, errors.New("parse the authority's certificate: no Ed25519 authority")
	}
	pub, err := parseRSA(p.RSA)
	if err != nil {
		return Roots{}, fmt.Errorf("login server: %w", err)
	}
	return Roots{ca: ca, rsa: pub}, nil
}

// RSA is the login server's key that session keys are wrapped with.
func (r Roots) RSA() *rsa.PublicKey { return r.rsa }

// ErrExpired marks a certificate outside its validity.
var ErrExpired = errors.New("certificate is not valid now")

// Verify checks that the authority signed the certificate and that it is valid
// at the given time.
func (r Roots) Verify(c *Certificate, now time.Time) error {
	if r.ca == nil {
		return errors.New("verify certificate: no authority is pinned")
	}
	if c == nil || c.parsed == nil {
		return errors.New("verify certificate: none given")
	}
	if err := c.parsed.CheckSignatureFrom(r.ca); err != nil {
		return fmt.Errorf("verify certificate of %s: %w", c.Name, err)
	}
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("verify certificate of %s: %w (valid %s to %s)", c.Name, ErrExpired,
			c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}
