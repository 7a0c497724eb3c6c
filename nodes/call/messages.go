// Package call is a call between two users: signalling over TCP, end to end in
// mutual TLS, and media over the best path that the two ends' boxes allow.
//
// The caller finds the callee, connects to it with package reach, and sends
// the invite with the call's subject and its candidates; the callee accepts.
// Where both have UDP, each end checks the other's candidates with STUN
// (RFC 8445 in little) and sends its media over a pair as soon as its own
// check of it was answered. Where one has none and the other is reached over
// TCP, media goes over a TCP connection between the two. Else both open media
// legs at a relay that both hold, by UDP where that passes.
//
// An end may send on any way that the other is known to receive on, and
// receives on all of them at once, so that moving from one to another loses
// nothing. Relays are taken in their order: who hears the other end on a later
// one than its own goes there too, which is how the two agree without a word
// of signalling. Those in parallel stand by with small messages.
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
	methodHangup = "call.hangup" // either: the call ends
	methodResume = "call.resume" // caller: the call goes on over another relay
	noticeLegs   = "call.legs"   // either: my media legs at relays are open
	noticeReport = "call.report" // either: what came of your media
)

// relaysPurpose is that of relays for a call beyond those that its signalling
// was set up with.
const relaysPurpose = "gauntlet-call-relays/1"

// maxCandidates bounds the addresses of one end.
const maxCandidates = 8

// offer is what an end says of the ways to it.
type offer struct {
	_          struct{} `cbor:",toarray"`
	UDP        bool
	Public     bool           // reached over UDP by others without having sent to them
	External   netip.AddrPort // UDP socket as supernodes see it
	Candidates []netip.AddrPort
	Predicted  []netip.AddrPort // where the box will map the socket to next, in order; none without prediction
	Mapping    string           // of the box, as login found out (RFC 4787 §4.1); empty: unknown
	Filtering  string           // likewise, §5
	User       string           // of the other end's STUN requests to this one
	Password   string           // likewise
	Listen     netip.AddrPort   // TCP listener, where others get in; zero: nowhere
	Token      relay.Token      // a media connection to Listen begins with it
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

// noRelay in a leg's notice asks the caller for relays, as the call has none.
const noRelay = -1

// leg says that this end takes media at a relay of the call.
type leg struct {
	_         struct{} `cbor:",toarray"`
	Relay     int      // number in the call's order, or noRelay
	Transport relay.Transport
}

// legs are all that this end has open, so that the other end doesn't learn of a
// later one before an earlier one.
type legs struct {
	_    struct{} `cbor:",toarray"`
	List []leg
}

// report is a receiver report, RFC 3550 §6.4.1 in little: the packets that were
// due and that came since the last one, all of them over one way.
type report struct {
	_        struct{} `cbor:",toarray"`
	Relay    int
	Expected int
	Received int
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
