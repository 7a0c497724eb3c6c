// Package directory is where users are found: the signed record of each user,
// its store on the supernodes responsible for the name, publishing, querying,
// and the introduction of one user to another through their supernodes. Both
// halves, client's and supernode's, are here; the search that is built on it
// is package search below.
package directory

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// Supernode is how a supernode is reached.
type Supernode struct {
	_    struct{} `cbor:",toarray"`
	Name string
	Addr netip.AddrPort // UDP and TCP
	Seal []byte         // X25519 public key
}

// SealKey is the key to which datagrams for the supernode are sealed.
func (s Supernode) SealKey() (*ecdh.PublicKey, error) {
	key, err := ecdh.X25519().NewPublicKey(s.Seal)
	if err != nil {
		return nil, fmt.Errorf("key of supernode %s: %w", s.Name, err)
	}
	return key, nil
}

// Reach is how a user can be reached, as login found out.
type Reach struct {
	_         struct{}       `cbor:",toarray"`
	UDP       bool           // datagrams are answered at all
	External  netip.AddrPort // of its UDP socket as supernodes see it; zero without UDP
	Listen    netip.AddrPort // of its TCP listener, where that may be reached
	PublicUDP bool           // a supernode that it had not sent to reached External
	PublicTCP bool           // a supernode reached Listen
}

// Record says who a user is and where.
type Record struct {
	_         struct{} `cbor:",toarray"`
	Sequence  uint64   // of two records of a user the higher wins
	Time      int64    // Unix time in milliseconds of the signature
	Cert      []byte   // DER
	Supernode Supernode
	Reach     Reach

	Certificate *identity.Certificate `cbor:"-"` // parsed and verified by Open
}

// Name is the user's.
func (r *Record) Name() string { return r.Certificate.Name }

// Signed is a record with its user's signature, as it is stored and sent.
type Signed struct {
	_         struct{} `cbor:",toarray"`
	Body      []byte
	Signature []byte
}

// MaxSigned bounds a signed record's body in bytes, so that it fits the answer
// to a query over UDP.
const MaxSigned = 940

// ErrRecord marks a record that is malformed, too large, or not signed by the
// user that it names.
var ErrRecord = errors.New("invalid user record")

// domain keeps the signature of a record apart from all other signatures.
const domain = "gauntlet user record/1\x00"

// Sign makes the signed record of the user whose certificate and keys these
// are.
func Sign(keys *identity.Keys, cert *identity.Certificate, sequence uint64, now time.Time, home Supernode, reach Reach) (Signed, error) {
	body, err := wire.Marshal(&Record{
		Sequence: sequence, Time: now.UnixMilli(), Cert: cert.DER, Supernode: home, Reach: reach,
	})
	if err != nil {
		return Signed{}, fmt.Errorf("sign record of %s: %w", cert.Name, err)
	}
	if len(body) > MaxSigned {
		return Signed{}, fmt.Errorf("sign record of %s: %d bytes, at most %d", cert.Name, len(body), MaxSigned)
	}
	return Signed{Body: body, Signature: ed25519.Sign(keys.Sign, toSign(body))}, nil
}

func toSign(body []byte) []byte { return append([]byte(domain), body...) }

// Open checks a signed record: its certificate must be a client's and have
// been valid when the record was signed, and its key must have signed it. A
// record outlives its certificate, since users are found for a time after
// they were last seen; whether the certificate is still good is for the
// authorization exchange to see. All errors wrap ErrRecord.
func (s Signed) Open(roots identity.Roots) (*Record, error) {
	if len(s.Body) > MaxSigned {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrRecord, len(s.Body), MaxSigned)
	}
	r := new(Record)
	if err := wire.Unmarshal(s.Body, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	cert, err := identity.Parse(r.Cert)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := roots.Verify(cert, time.UnixMilli(r.Time)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if cert.Role != identity.RoleClient {
		return nil, fmt.Errorf("%w: %s is a %s", ErrRecord, cert.Name, cert.Role)
	}
	if !ed25519.Verify(cert.Sign, toSign(s.Body), s.Signature) {
		return nil, fmt.Errorf("%w: wrong signature of %s", ErrRecord, cert.Name)
	}
	if _, err := r.Supernode.SealKey(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	r.Certificate = cert
	return r, nil
}
