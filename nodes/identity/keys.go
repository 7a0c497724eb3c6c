// Package identity holds the keys of a node, the login server's certification
// authority, the certificates that it issues, their verification against that
// one pinned authority, and the TLS configurations built on them.
package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// Roles of a certificate's subject.
const (
	RoleClient    = "client"
	RoleSupernode = "supernode"
	RoleLogin     = "login"
)

// RSABits is the length of every RSA modulus here. The original used 1024 for
// users and 1536 or 2048 for its servers (papers.md §2.2); NIST SP 800-57
// asks for 2048 at least.
const RSABits = 2048

// Keys are a node's own: Sign identifies it, Seal opens what is sealed to it.
type Keys struct {
	Sign ed25519.PrivateKey
	Seal *ecdh.PrivateKey // X25519
}

// NewKeys makes fresh keys from the system's random source.
func NewKeys() (*Keys, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make Ed25519 key: %w", err)
	}
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make X25519 key: %w", err)
	}
	return &Keys{Sign: sign, Seal: seal}, nil
}

// Public is the public half of Sign.
func (k *Keys) Public() ed25519.PublicKey { return k.Sign.Public().(ed25519.PublicKey) }

// NewRSA makes the RSA key pair of one login. It costs some tenths of a
// second of CPU.
func NewRSA() (*rsa.PrivateKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, RSABits)
	if err != nil {
		return nil, fmt.Errorf("make RSA-%d key: %w", RSABits, err)
	}
	return k, nil
}

// WrapKey encrypts an AES key to pub with RSA-OAEP and SHA-256 (RFC 8017
// §7.1); label binds it to where it is used.
func WrapKey(pub *rsa.PublicKey, key, label []byte) ([]byte, error) {
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, key, label)
	if err != nil {
		return nil, fmt.Errorf("wrap key with RSA-OAEP: %w", err)
	}
	return ct, nil
}

// parseRSA reads a PKIX RSA key and checks that it is of RSABits.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse RSA key: %w", err)
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("parse RSA key: %T is no RSA key", k)
	}
	if n := pub.N.BitLen(); n != RSABits {
		return nil, fmt.Errorf("parse RSA key: modulus of %d bits, want %d", n, RSABits)
	}
	if pub.E != 65537 {
		return nil, fmt.Errorf("parse RSA key: public exponent %d, want 65537", pub.E)
	}
	return pub, nil
}
