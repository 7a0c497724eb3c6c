// Package relay is the one-hop relay that a supernode is for two clients who
// cannot reach each other: both halves of it.
//
//	A ──TLS── relay ──TLS── B      frames: join, stream, standby, tokens
//	A ──UDP── relay ──TCP── B      media, each leg as its end can
//
// Each end opens a TLS connection to the relay (ALPN [Protocol]) and joins the
// same session, whose identifier both learned through the overlay. From then
// the relay passes each end's stream frames to the other, in order and with
// back-pressure; what is inside is the ends' own TLS and the relay can neither
// read nor change it. Media has a leg of its own for each end, opened by a
// single-use token that the relay gives over the TLS connection: a TCP
// connection that begins with the token and then carries packets behind a
// 2-byte length, or datagrams from the address that the token came from. The
// relay adds no header to media.
//
// Everything that an end can make a relay hold is bounded by [Config].
package relay

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Protocol is the TLS ALPN name of a relay connection.
const Protocol = "gauntlet-relay/1"

// ID names a session at its relay: 16 random bytes, known to the two ends.
type ID [16]byte

// NewID makes a session identifier.
func NewID() ID {
	var id ID
	rand.Read(id[:])
	return id
}

// User is an end as the relay knows it: the hash of the certificate that it
// proved to hold.
type User [32]byte

// Transport of a media leg.
type Transport uint8

// The two transports of a media leg.
const (
	UDP Transport = 1
	TCP Transport = 2
)

// String is udp or tcp.
func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	}
	return fmt.Sprintf("transport %d", uint8(t))
}

// TokenMark is the first byte of a token as it travels outside TLS: on a TCP
// connection it cannot be mistaken for a TLS handshake record (22), in a
// datagram neither for STUN, DTLS nor RTP (RFC 7983 §7).
const TokenMark = 0xC2

// TokenSize is the size in bytes of a token on the wire, mark included.
const TokenSize = 1 + 16

// Token opens one media leg, once.
type Token [16]byte

// Wire is the token as it is sent to the relay.
func (t Token) Wire() []byte { return append([]byte{TokenMark}, t[:]...) }

// ParseToken reads a token off the wire.
func ParseToken(wire []byte) (Token, bool) {
	if len(wire) != TokenSize || wire[0] != TokenMark {
		return Token{}, false
	}
	return Token(wire[1:]), true
}

// Frame types of a relay connection.
const (
	frameJoin    = 1 // to the relay: ID, peer's User
	framePaired  = 2 // from the relay: the peer has joined
	frameStream  = 3 // either way, passed on: bytes of the ends' stream
	frameStandby = 4 // either way, passed on: the session is still wanted
	frameAsk     = 5 // to the relay: Transport of a media leg
	frameToken   = 6 // from the relay: Transport, Token
	frameOpened  = 7 // from the relay: Transport of the leg that is open now
	frameBye     = 8 // from the relay: why it ends the session, in words
)

// headerSize is a frame's type and the length of its body, in bytes.
const headerSize = 3

// maxBody bounds a frame's body in bytes; it fits a TLS record.
const maxBody = 16<<10 - headerSize

// standbyBody is the body of a standby message in bytes. With the frame's
// header it makes the 19 bytes that BS04 (Figs 10, 11) saw on standby
// connections.
const standbyBody = 16

var errFrame = errors.New("malformed relay frame")

// frameBuffer holds one frame, header first, so that it is passed on as it
// came in one write.
type frameBuffer [headerSize + maxBody]byte

// read reads a frame and returns its type, its body, and the whole frame.
func (b *frameBuffer) read(r io.Reader) (kind byte, body, whole []byte, err error) {
	if _, err := io.ReadFull(r, b[:headerSize]); err != nil {
		return 0, nil, nil, err
	}
	size := int(binary.BigEndian.Uint16(b[1:headerSize]))
	if size > maxBody {
		return 0, nil, nil, fmt.Errorf("%w: body of %d bytes", errFrame, size)
	}
	if _, err := io.ReadFull(r, b[headerSize:headerSize+size]); err != nil {
		return 0, nil, nil, fmt.Errorf("read relay frame: %w", err)
	}
	return b[0], b[headerSize : headerSize+size], b[:headerSize+size], nil
}

// frame makes a frame of a small body.
func frame(kind byte, body ...[]byte) []byte {
	out := make([]byte, headerSize, headerSize+64)
	for _, part := range body {
		out = append(out, part...)
	}
	out[0] = kind
	binary.BigEndian.PutUint16(out[1:], uint16(len(out)-headerSize))
	return out
}

// parseJoin reads the body of a join frame.
func parseJoin(body []byte) (id ID, peer User, err error) {
	if len(body) != len(id)+len(peer) {
		return id, peer, fmt.Errorf("%w: join of %d bytes", errFrame, len(body))
	}
	copy(id[:], body)
	copy(peer[:], body[len(id):])
	return id, peer, nil
}

// parseTransport reads the body of an ask or opened frame.
func parseTransport(body []byte) (Transport, error) {
	if len(body) != 1 || (Transport(body[0]) != UDP && Transport(body[0]) != TCP) {
		return 0, fmt.Errorf("%w: transport %x", errFrame, body)
	}
	return Transport(body[0]), nil
}

// Config bounds what a relay gives. A supernode's user cannot refuse to relay
// (BS04), but what it costs is limited.
type Config struct {
	MaxSessions  int           // in all; an end that wants one more is refused
	MaxPerUser   int           // sessions that one user holds an end of
	JoinTimeout  time.Duration // for the first frame, for the peer to join, and for a token to be used
	IdleTimeout  time.Duration // without any frame from an end, its session ends
	WriteTimeout time.Duration // for an end to take a frame
	StreamRate   int           // bytes/s of stream frames of an end; above, the end is slowed
	StreamBurst  int           // bytes that may pass at once
	MediaRate    int           // bytes/s of media of an end; above, packets are dropped
	MediaBurst   int           // bytes
}

// Default is a supernode's usual bounds. The media rate leaves room for a
// video of KH08's 10 kB/s beside a voice of 5 kB/s; the stream takes a call's
// signalling with a subject of 48 KiB at once.
func Default() Config {
	return Config{
		MaxSessions:  1024,
		MaxPerUser:   32,
		JoinTimeout:  10 * time.Second,
		IdleTimeout:  90 * time.Second,
		WriteTimeout: 10 * time.Second,
		StreamRate:   256 << 10,
		StreamBurst:  256 << 10,
		MediaRate:    32 << 10,
		MediaBurst:   16 << 10,
	}
}
