// Package call is a call between two users: signalling over TCP, end to end in
// mutual TLS, and media over the best path that the two ends' boxes allow.
//
// The caller finds the callee, connects to it with package reach, and sends
// the invite with the call's subject and its candidates; the callee accepts.
// Where both have UDP, each end checks the other's candidates with STUN
// (RFC 8445 in little) and media goes over the pair that works. Else both open
// media legs at the relay that carries the signalling, by UDP where that
// passes. Relays in parallel stand by with small messages; when the carrying
// one dies, signalling and media go on over the next.
package call

import (
	"net/netip"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/relay"
)

// MaxSubject bounds a call's subject in bytes.
const MaxSubject = 60 << 10

// Methods of the signalling connection.
const (
	methodInvite = "call.invite" // caller: first of all
	methodMedia  = "call.media"  // caller: which way media goes now
	methodHangup = "call.hangup" // either: the call ends
	methodResume = "call.resume" // caller: the call goes on over another relay
)

// relaysPurpose is that of relays for a call whose signalling is direct but
// whose media is not.
const relaysPurpose = "gauntlet-call-relays/1"

// maxCandidates bounds the addresses of one end.
const maxCandidates = 8

// offer is what an end says of its UDP socket.
type offer struct {
	_          struct{} `cbor:",toarray"`
	UDP        bool
	Public     bool           // reached by others without having sent to them
	External   netip.AddrPort // as supernodes see it
	Candidates []netip.AddrPort
	User       string // of the other end's STUN requests to this one
	Password   string // likewise
}

type inviteRequest struct {
	_       struct{} `cbor:",toarray"`
	Call    directory.Session
	Subject []byte
	Offer   offer
}

type inviteAnswer struct {
	_     struct{} `cbor:",toarray"`
	Offer offer
}

// mediaRequest says which way the caller has decided on: the pair that was
// checked, or a relay of the group.
type mediaRequest struct {
	_      struct{} `cbor:",toarray"`
	Direct bool
	Relay  int
}

// mediaAnswer says that the callee is on that way too.
type mediaAnswer struct {
	_         struct{} `cbor:",toarray"`
	Ready     bool
	Why       string // not ready, in words
	Transport relay.Transport
}

type resumeRequest struct {
	_    struct{} `cbor:",toarray"`
	Call directory.Session
}

type hangupRequest struct {
	_      struct{} `cbor:",toarray"`
	Reason string
}

type hangupAnswer struct {
	_    struct{} `cbor:",toarray"`
	Sent int      // media packets of this end
}
