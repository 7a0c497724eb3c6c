package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"
)

// backdate is how far before its issue a certificate is valid, for clocks
// that run behind.
const backdate = time.Minute

// Authority is the login server's: an Ed25519 key that signs certificates and
// an RSA key under which clients wrap their session keys.
type Authority struct {
	sign ed25519.PrivateKey
	wrap *rsa.PrivateKey
	ca   *x509.Certificate
	now  func() time.Time
}

// NewAuthority makes an authority with fresh keys whose own certificate is
// valid for the given time.
func NewAuthority(now func() time.Time, validFor time.Duration) (*Authority, error) {
	pub, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	wrap, err := NewRSA()
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "gauntlet login authority"},
		NotBefore:             now().Add(-backdate),
		NotAfter:              now().Add(validFor),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, sign)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{sign: sign, wrap: wrap, ca: ca, now: now}, nil
}

// Public is what everybody pins.
func (a *Authority) Public() (Public, error) {
	der, err := x509.MarshalPKIXPublicKey(&a.wrap.PublicKey)
	if err != nil {
		return Public{}, fmt.Errorf("encode the authority's RSA key: %w", err)
	}
	return Public{CA: a.ca.Raw, RSA: der}, nil
}

// Subject is what a certificate says.
type Subject struct {
	Name string
	Role string
	Addr netip.AddrPort // of a supernode
	Sign ed25519.PublicKey
	Seal *ecdh.PublicKey
	RSA  *rsa.PublicKey // of a client
}

// Issue signs a certificate that is valid from now on for the given time.
func (a *Authority) Issue(s Subject, validFor time.Duration) (*Certificate, error) {
	if err := CheckName(s.Name); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if len(s.Sign) != ed25519.PublicKeySize || s.Seal == nil {
		return nil, fmt.Errorf("issue certificate of %s: keys are missing", s.Name)
	}
	c := &Certificate{Name: s.Name, Role: s.Role, Addr: s.Addr, Sign: s.Sign, Seal: s.Seal, RSA: s.RSA}
	ext, err := c.appendExtension()
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", s.Name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", s.Name, err)
	}
	template := &x509.Certificate{
		SerialNumber:    serial,
		Subject:         pkix.Name{CommonName: s.Name},
		NotBefore:       a.now().Add(-backdate),
		NotAfter:        a.now().Add(validFor),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: extensionID, Value: ext}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, s.Sign, a.sign)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", s.Name, err)
	}
	issued, err := Parse(der)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", s.Name, err)
	}
	return issued, nil
}

// UnwrapKey undoes [WrapKey].
func (a *Authority) UnwrapKey(wrapped, label []byte) ([]byte, error) {
	key, err := rsa.DecryptOAEP(sha256.New(), nil, a.wrap, wrapped, label)
	if err != nil {
		return nil, fmt.Errorf("unwrap key: %w", err)
	}
	return key, nil
}

// newSerial draws a serial number of 127 bits. RFC 5280 §4.1.2.2 allows up to
// 20 octets, and asks for a positive number.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	b[0] &= 0x7f
	n := new(big.Int).SetBytes(b)
	if n.Sign() == 0 {
		return nil, errors.New("draw serial number: zero")
	}
	return n, nil
}
