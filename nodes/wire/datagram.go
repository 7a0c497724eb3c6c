package wire

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"gauntlet/nodes/identity"
)

// A sealed datagram is
//
//	header (4) | HPKE enc (32) | ciphertext | tag (16)
//
// with header = 0xC1, version, kind, 0. The first byte keeps it apart on a
// shared port from STUN (0 to 3) and RTP (128 to 191), see RFC 7983 §7. The
// plaintext is a CBOR array of the inner message, itself as a byte string, and
// the sender's Ed25519 signature, empty from a sender without certificate.
const (
	FirstByte = 0xC1
	version   = 1

	// MaxDatagram bounds a sealed datagram in bytes: with 28 bytes of IPv4 and
	// UDP it fits a path of 1428 bytes.
	MaxDatagram = 1400
	// RequestSize is what a request is padded to, so that no answer to an
	// unproven address is larger than its request. 1200 bytes pass every path
	// that QUIC asks for (RFC 9000 §14).
	RequestSize = 1200

	headerSize = 4
	encSize    = 32
	tagSize    = 16
	// Overhead is the size of a sealed datagram without its plaintext.
	Overhead = headerSize + encSize + tagSize

	nonceSize = 12
)

// Domain separates this protocol's HPKE contexts and signatures from others.
const domain = "gauntlet datagram/1"

// ErrDatagram marks a datagram that is not a valid sealed one: malformed, not
// for this key, or with a wrong signature.
var ErrDatagram = errors.New("invalid sealed datagram")

type inner struct {
	_        struct{} `cbor:",toarray"`
	Time     int64    // Unix time in milliseconds
	Nonce    []byte   // 12 random bytes
	CertHash []byte   // SHA-256 of the sender's certificate, or empty
	Cert     []byte   // the certificate itself, or empty
	Reply    []byte   // the X25519 key to which an answer is sealed
	Answers  []byte   // the nonce of the request that this answers, or empty
	Body     cbor.RawMessage
	Pad      []byte
}

type outer struct {
	_         struct{} `cbor:",toarray"`
	Inner     []byte
	Signature []byte
}

// Message is what goes into a datagram.
type Message struct {
	Kind       uint8
	From       *identity.Keys
	Cert       *identity.Certificate // nil: anonymous
	AttachCert bool                  // send the certificate, not only its hash
	Now        time.Time
	Answers    []byte // the nonce of the request, for an answer
	Size       int    // pad to this many bytes; 0: don't
	Body       any
}

// Opened is a datagram that was unsealed. Signed says whether there is a
// signature; it is yet to be verified with [Opened.Verify].
type Opened struct {
	Kind     uint8
	Time     time.Time
	Nonce    [nonceSize]byte
	CertHash [32]byte              // zero: anonymous
	Cert     *identity.Certificate // nil: not attached
	Reply    *ecdh.PublicKey
	Answers  []byte
	Body     cbor.RawMessage
	Size     int // of the whole datagram in bytes

	signed, signature []byte
}

// Seal makes the datagram in short form, see [SealMessage].
func Seal(to *ecdh.PublicKey, kind uint8, from *identity.Keys, cert *identity.Certificate, attachCert bool,
	now time.Time, msg any) ([]byte, error) {
	d, _, err := SealMessage(to, Message{Kind: kind, From: from, Cert: cert, AttachCert: attachCert, Now: now, Body: msg})
	return d, err
}

// SealMessage seals m to the receiver's X25519 key and returns the datagram
// and its nonce. HPKE's base mode doesn't authenticate, so the sender signs
// inside.
func SealMessage(to *ecdh.PublicKey, m Message) (datagram []byte, nonce [nonceSize]byte, err error) {
	rand.Read(nonce[:]) // never fails, see crypto/rand
	body, err := Marshal(m.Body)
	if err != nil {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
	}
	in := inner{Time: m.Now.UnixMilli(), Nonce: nonce[:], Reply: m.From.Seal.PublicKey().Bytes(),
		Answers: m.Answers, Body: body}
	if m.Cert != nil {
		hash := m.Cert.Hash()
		in.CertHash = hash[:]
		if m.AttachCert {
			in.Cert = m.Cert.DER
		}
	}
	plain, err := in.sign(to, m)
	if err != nil {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
	}
	if short := m.Size - Overhead - len(plain); short > 0 {
		// A byte string's length takes more bytes as it grows, so the size
		// may come out a little above what was asked for, and is corrected.
		in.Pad = make([]byte, short)
		if plain, err = in.sign(to, m); err != nil {
			return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
		}
		if over := len(plain) + Overhead - m.Size; over > 0 && over <= short {
			in.Pad = in.Pad[over:]
			if plain, err = in.sign(to, m); err != nil {
				return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
			}
		}
	}
	if n := Overhead + len(plain); n > MaxDatagram {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %d bytes, at most %d", m.Kind, n, MaxDatagram)
	}
	header := []byte{FirstByte, version, m.Kind, 0}
	pk, err := hpke.NewDHKEMPublicKey(to)
	if err != nil {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
	}
	enc, sender, err := hpke.NewSender(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), info(to, m.Kind))
	if err != nil {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
	}
	ct, err := sender.Seal(header, plain)
	if err != nil {
		return nil, nonce, fmt.Errorf("seal datagram of kind %d: %w", m.Kind, err)
	}
	return append(append(header, enc...), ct...), nonce, nil
}

func (in *inner) sign(to *ecdh.PublicKey, m Message) ([]byte, error) {
	b, err := Marshal(in)
	if err != nil {
		return nil, err
	}
	out := outer{Inner: b}
	if m.Cert != nil {
		out.Signature = ed25519.Sign(m.From.Sign, toSign(to, m.Kind, b))
	}
	return Marshal(out)
}

// info binds an HPKE context to protocol, receiver and kind (RFC 9180 §5.1).
func info(to *ecdh.PublicKey, kind uint8) []byte {
	hash := sha256.Sum256(to.Bytes())
	return append(append([]byte(domain), hash[:]...), kind)
}

// toSign is what a signature covers: protocol, receiver, kind and the inner
// message. With the receiver inside, it cannot be sealed again to another.
func toSign(to *ecdh.PublicKey, kind uint8, inner []byte) []byte {
	return append(append(append([]byte(domain+" signature"), to.Bytes()...), kind), inner...)
}

// Kind reads the kind of a datagram without opening it; false means that this
// is no sealed datagram of this version.
func Kind(datagram []byte) (kind uint8, ok bool) {
	if len(datagram) < Overhead || len(datagram) > MaxDatagram ||
		datagram[0] != FirstByte || datagram[1] != version || datagram[3] != 0 {
		return 0, false
	}
	return datagram[2], true
}

// Open unseals a datagram. All errors wrap [ErrDatagram].
func Open(k *ecdh.PrivateKey, datagram []byte) (*Opened, error) {
	kind, ok := Kind(datagram)
	if !ok {
		return nil, fmt.Errorf("%w: header", ErrDatagram)
	}
	sk, err := hpke.NewDHKEMPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
	}
	enc := datagram[headerSize : headerSize+encSize]
	r, err := hpke.NewRecipient(enc, sk, hpke.HKDFSHA256(), hpke.AES256GCM(), info(k.PublicKey(), kind))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
	}
	plain, err := r.Open(datagram[:headerSize], datagram[headerSize+encSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
	}
	o, err := parse(k.PublicKey(), kind, plain)
	if err != nil {
		return nil, err
	}
	o.Size = len(datagram)
	return o, nil
}

// parse reads the plaintext of a datagram.
func parse(to *ecdh.PublicKey, kind uint8, plain []byte) (*Opened, error) {
	var out outer
	if err := Unmarshal(plain, &out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
	}
	var in inner
	if err := Unmarshal(out.Inner, &in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
	}
	if len(in.Nonce) != nonceSize || len(in.Answers) != 0 && len(in.Answers) != nonceSize {
		return nil, fmt.Errorf("%w: nonce of %d bytes, answers %d", ErrDatagram, len(in.Nonce), len(in.Answers))
	}
	if kind&Answer != 0 != (len(in.Answers) != 0) {
		return nil, fmt.Errorf("%w: kind %d with %d bytes of answered nonce", ErrDatagram, kind, len(in.Answers))
	}
	o := &Opened{Kind: kind, Time: time.UnixMilli(in.Time), Nonce: [nonceSize]byte(in.Nonce),
		Answers: in.Answers, Body: in.Body, signature: out.Signature}
	var err error
	if o.Reply, err = ecdh.X25519().NewPublicKey(in.Reply); err != nil {
		return nil, fmt.Errorf("%w: reply key: %w", ErrDatagram, err)
	}
	switch len(in.CertHash) {
	case 0:
		if len(in.Cert) != 0 || len(out.Signature) != 0 {
			return nil, fmt.Errorf("%w: anonymous with certificate or signature", ErrDatagram)
		}
		return o, nil
	case len(o.CertHash):
		o.CertHash = [32]byte(in.CertHash)
	default:
		return nil, fmt.Errorf("%w: certificate hash of %d bytes", ErrDatagram, len(in.CertHash))
	}
	if len(in.Cert) > 0 {
		if o.Cert, err = identity.Parse(in.Cert); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDatagram, err)
		}
		if o.Cert.Hash() != o.CertHash {
			return nil, fmt.Errorf("%w: certificate and its hash differ", ErrDatagram)
		}
	}
	if len(out.Signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: signature of %d bytes", ErrDatagram, len(out.Signature))
	}
	o.signed = toSign(to, kind, out.Inner)
	return o, nil
}

// Anonymous says whether the sender shows no certificate.
func (o *Opened) Anonymous() bool { return o.CertHash == [32]byte{} }

// Verify checks the signature with the key of the sender's certificate, which
// the caller has verified against the authority.
func (o *Opened) Verify(c *identity.Certificate) error {
	if o.Anonymous() {
		return fmt.Errorf("%w: it is anonymous", ErrDatagram)
	}
	if c.Hash() != o.CertHash {
		return fmt.Errorf("%w: it is of another certificate", ErrDatagram)
	}
	if !ed25519.Verify(c.Sign, o.signed, o.signature) {
		return fmt.Errorf("%w: wrong signature of %s", ErrDatagram, c.Name)
	}
	return nil
}

// Decode reads the body.
func (o *Opened) Decode(v any) error { return Unmarshal(o.Body, v) }
