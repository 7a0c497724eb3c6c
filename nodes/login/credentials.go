// Package login is the way into the overlay: the login server with its
// accounts and certificates, the client's exchange of credentials with it, the
// supernode that relays that exchange, and the enrolment of supernodes.
package login

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// Methods of the login server's link.
const (
	methodLogin = "login"
	methodEnrol = "enrol"
)

// exporterLabel names the keying material to which an exchange of credentials
// is bound (RFC 5705 §4 asks for a label that starts so).
const exporterLabel = "EXPERIMENTAL-gauntlet-login"

// exporterSize is the length of that material in bytes.
const exporterSize = 32

// keySize is the size of the AES-256 session key in bytes.
const keySize = 32

// MaxPayload bounds the padding of the credentials in bytes.
const MaxPayload = 48 << 10

// request is the message of methodLogin. The structure is the original's
// (papers.md §2.2): a session key wrapped with the server's RSA key, and the
// credentials under that key.
type request struct {
	_      struct{} `cbor:",toarray"`
	Key    []byte   // AES-256 key under RSA-OAEP
	Nonce  []byte   // of AES-GCM
	Sealed []byte   // credentials under AES-GCM
}

// credentials are what a user shows.
type credentials struct {
	_        struct{} `cbor:",toarray"`
	User     string
	Password string
	Sign     []byte // Ed25519 public key
	Seal     []byte // X25519 public key
	RSA      []byte // PKIX DER
	Payload  []byte
	// SignProof and RSAProof show possession of the two signing keys: a
	// signature over the TLS exporter and all three public keys. X25519 has no
	// signatures; the seal key is vouched for by the other two.
	SignProof []byte
	RSAProof  []byte
}

// answer is the server's.
type answer struct {
	_    struct{} `cbor:",toarray"`
	Cert []byte
}

// toProve is what the proofs sign.
func (c *credentials) toProve(exporter []byte) []byte {
	h := sha256.New()
	for _, b := range [][]byte{[]byte(exporterLabel), exporter, c.Sign, c.Seal, c.RSA} {
		h.Write([]byte{byte(len(b) >> 8), byte(len(b))})
		h.Write(b)
	}
	return h.Sum(nil)
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// pss are the options of the RSA proof (RFC 8017 §8.1).
var pss = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}

// seal makes the request: the exporter of the TLS session is the label of the
// wrapped key and the additional data of the credentials, so that neither can
// be used on another connection.
func (c *credentials) seal(keys *identity.Keys, rsaKey *rsa.PrivateKey, server *rsa.PublicKey, exporter []byte) (*request, error) {
	c.Sign, c.Seal = keys.Public(), keys.Seal.PublicKey().Bytes()
	var err error
	if c.RSA, err = x509.MarshalPKIXPublicKey(&rsaKey.PublicKey); err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	digest := c.toProve(exporter)
	c.SignProof = ed25519.Sign(keys.Sign, digest)
	if c.RSAProof, err = rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest, pss); err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	plain, err := wire.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	key := make([]byte, keySize)
	rand.Read(key)
	aead, err := gcm(key)
	if err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	r := &request{Nonce: make([]byte, aead.NonceSize())}
	rand.Read(r.Nonce)
	r.Sealed = aead.Seal(nil, r.Nonce, plain, exporter)
	if r.Key, err = identity.WrapKey(server, key, exporter); err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	return r, nil
}

// open undoes seal at the server and checks the proofs.
func (r *request) open(a *identity.Authority, exporter []byte) (*credentials, *identity.Subject, error) {
	key, err := a.UnwrapKey(r.Key, exporter)
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	if len(key) != keySize {
		return nil, nil, fmt.Errorf("open credentials: key of %d bytes, want %d", len(key), keySize)
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	if len(r.Nonce) != aead.NonceSize() {
		return nil, nil, fmt.Errorf("open credentials: nonce of %d bytes", len(r.Nonce))
	}
	plain, err := aead.Open(nil, r.Nonce, r.Sealed, exporter)
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	c := new(credentials)
	if err := wire.Unmarshal(plain, c); err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	if len(c.Payload) > MaxPayload {
		return nil, nil, fmt.Errorf("open credentials: payload of %d bytes, at most %d", len(c.Payload), MaxPayload)
	}
	s, err := c.subject(exporter)
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	return c, s, nil
}

// subject reads the keys and checks that the sender has them.
func (c *credentials) subject(exporter []byte) (*identity.Subject, error) {
	if len(c.Sign) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("signing key of %d bytes", len(c.Sign))
	}
	s := &identity.Subject{Name: c.User, Role: identity.RoleClient, Sign: c.Sign}
	var err error
	if s.Seal, err = ecdh.X25519().NewPublicKey(c.Seal); err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	k, err := x509.ParsePKIXPublicKey(c.RSA)
	if err != nil {
		return nil, fmt.Errorf("RSA key: %w", err)
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() != identity.RSABits {
		return nil, fmt.Errorf("RSA key: want RSA-%d", identity.RSABits)
	}
	s.RSA = pub
	digest := c.toProve(exporter)
	if !ed25519.Verify(c.Sign, digest, c.SignProof) {
		return nil, errors.New("no proof of the signing key")
	}
	if err := rsa.VerifyPSS(pub, crypto.SHA256, digest, c.RSAProof, pss); err != nil {
		return nil, fmt.Errorf("no proof of the RSA key: %w", err)
	}
	return s, nil
}
