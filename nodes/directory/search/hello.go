package search

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// Bounds of greetings that are on their way to this user.
const (
	maxComing  = 8
	comingLife = 30 * time.Second
)

// chunkSize is the bytes of greeting in a datagram, which is then below 1200
// bytes.
const chunkSize = 920

// nonce is a challenge: fresh random bytes that the other end must sign.
type nonce [16]byte

// helloMessage begins the exchange. Like every sealed datagram it is signed by
// the caller, and its certificate goes with it.
type helloMessage struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
	Nonce   nonce
	Size    int      // of the greeting in bytes
	Digest  [32]byte // its SHA-256
}

// helloAnswer proves the callee to the caller, and challenges it in turn.
type helloAnswer struct {
	_       struct{} `cbor:",toarray"`
	Nonce   nonce
	Proof   []byte // the callee's signature over both nonces, see proof
	Refused string // why not, in words; empty: go on
}

// chunkMessage is a piece of the greeting. It holds the callee's challenge,
// and is signed by the caller like every sealed datagram, which proves the
// caller.
type chunkMessage struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
	Nonce   nonce
	Index   int
	Data    []byte
}

// ackMessage says what arrived of the greeting.
type ackMessage struct {
	_       struct{} `cbor:",toarray"`
	Session directory.Session
	Have    []byte // bit i%8 of byte i/8: chunk i is here
	Done    bool   // the greeting is whole, and accepted unless refused
	Refused string
}

type ack struct {
	have    []byte
	done    bool
	refused string
}

// coming is a greeting on its way to this user.
type coming struct {
	session directory.Session
	mine    nonce
	peer    *identity.Certificate
	digest  [32]byte
	data    []byte
	have    []byte
	missing int
	since   time.Time
	done    bool
	refused string
	answer  helloAnswer
}

// proof is what the callee signs: protocol, attempt, both users, both nonces.
func proof(session directory.Session, caller, callee [32]byte, callers, callees nonce) []byte {
	b := []byte("gauntlet authorization/1\x00")
	for _, part := range [][]byte{session[:], caller[:], callee[:], callers[:], callees[:]} {
		b = append(b, part...)
	}
	return b
}

// hello proves the callee at an address and gets its challenge.
func (s *Service) hello(ctx context.Context, to netip.AddrPort, peer *identity.Certificate, session directory.Session, greeting []byte) (nonce, error) {
	bound := s.client.Profile.PunchTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer from %s in %v", to, bound))
	defer cancel()
	m := helloMessage{Session: session, Size: len(greeting), Digest: sha256.Sum256(greeting)}
	rand.Read(m.Nonce[:])
	var answer helloAnswer
	if err := s.client.Socket.Request(ctx, to, peer.Seal, kindHello, m, &answer); err != nil {
		return nonce{}, err
	}
	if answer.Refused != "" {
		return nonce{}, fmt.Errorf("%s refuses: %q", peer.Name, answer.Refused)
	}
	signed := proof(session, s.client.Cert.Hash(), peer.Hash(), m.Nonce, answer.Nonce)
	if !ed25519.Verify(peer.Sign, signed, answer.Proof) {
		return nonce{}, fmt.Errorf("%s at %s does not prove itself", peer.Name, to)
	}
	return answer.Nonce, nil
}

// handleHello takes up a caller's greeting.
func (s *Service) handleHello(_ context.Context, from netip.AddrPort, o *wire.Opened) any {
	var m helloMessage
	if o.Cert == nil || o.Cert.Role != identity.RoleClient || o.Decode(&m) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened(m.Session, o.CertHash) && s.ctx.Err() == nil {
		s.tasks.Go(func() { s.answerFree(m.Session, o.Cert, from) })
	}
	if g := s.coming[o.CertHash]; g != nil && g.session == m.Session {
		return g.answer
	}
	if m.Size < 0 || m.Size > MaxGreeting {
		return helloAnswer{Refused: fmt.Sprintf("a greeting of %d bytes is too large", m.Size)}
	}
	now := time.Now()
	for hash, g := range s.coming {
		if now.Sub(g.since) > comingLife {
			delete(s.coming, hash)
		}
	}
	if _, again := s.coming[o.CertHash]; !again && len(s.coming) >= maxComing {
		return helloAnswer{Refused: "busy with other greetings"}
	}
	chunks := (m.Size + chunkSize - 1) / chunkSize
	g := &coming{session: m.Session, peer: o.Cert, digest: m.Digest, data: make([]byte, m.Size),
		have: make([]byte, (chunks+7)/8), missing: chunks, since: now}
	rand.Read(g.mine[:])
	signed := proof(m.Session, o.CertHash, s.client.Cert.Hash(), m.Nonce, g.mine)
	g.answer = helloAnswer{Nonce: g.mine, Proof: ed25519.Sign(s.client.Keys.Sign, signed)}
	s.coming[o.CertHash] = g
	return g.answer
}

// finish accepts a greeting that is whole. Called with the lock held.
func (s *Service) finish(g *coming) {
	g.done = true
	err := errors.New("the greeting is not the one announced")
	if sha256.Sum256(g.data) == g.digest {
		err = s.accept(g.peer, g.data)
	}
	if err != nil {
		g.refused = err.Error()
	}
	g.data = nil
	s.client.Log.Info("greeting received over UDP", "from", g.peer.Name, "refused", g.refused)
}
