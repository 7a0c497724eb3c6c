package directory

import (
	"net/netip"

	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// Methods of a client's link to its supernode.
const (
	methodResponsible = "directory.responsible" // who keeps the record of a user
	methodPublish     = "directory.publish"     // keep my record
	methodQuery       = "directory.query"       // ask for me, I have no UDP
	methodIntroduce   = "directory.introduce"   // tell a user of me

	// MethodWhere is the supernode's, on the link to its client: somebody looks
	// for you, how is your UDP socket seen now?
	MethodWhere = "directory.where"
	// MethodIntroduced is the supernode's, on the link to its client: you are
	// told of a user. See Client.Introduced.
	MethodIntroduced = "directory.introduced"
)

// Methods between supernodes.
const (
	methodStore = "directory.store" // keep this record
	methodFetch = "directory.fetch" // give me this record
	methodPass  = "directory.pass"  // tell your client of a user
)

// Kinds of sealed datagrams to supernodes.
const (
	kindQuery  = wire.KindSearch     // a user's record
	kindLocate = wire.KindSearch + 1 // the external address of a supernode's client
	kindKnock  = wire.KindSearch + 2 // tell your client that I sent to it
)

// Kinds of datagrams between users.
const (
	KindPeer     = wire.KindSearch + 8  // the first of those of package search
	KindQuestion = wire.KindSearch + 12 // does my probe get in? (package freedom)
	KindProbe    = wire.KindSearch + 13 // to see whether it gets in
)

type nameRequest struct {
	_    struct{} `cbor:",toarray"`
	Name string
	Want int // of supernodes
}

type supernodesAnswer struct {
	_    struct{} `cbor:",toarray"`
	List []Supernode
}

type signedRequest struct {
	_      struct{} `cbor:",toarray"`
	Record Signed
}

type publishAnswer struct {
	_      struct{} `cbor:",toarray"`
	Stored int      // on so many supernodes
}

type recordAnswer struct {
	_      struct{} `cbor:",toarray"`
	Found  bool
	Record Signed
}

type locateRequest struct {
	_    struct{}       `cbor:",toarray"`
	Name string         // of the supernode's client
	From netip.AddrPort // external address of who asks
}

type locateAnswer struct {
	_        struct{} `cbor:",toarray"`
	Online   bool
	External netip.AddrPort // zero without UDP
}

type whereAnswer struct {
	_        struct{}       `cbor:",toarray"`
	External netip.AddrPort // zero: nobody says
}

type knockRequest struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Session Session
	From    netip.AddrPort
}

type knockAnswer struct {
	_      struct{} `cbor:",toarray"`
	Passed bool
}

// Session is the name that a caller gives to one attempt to reach a user: 16
// random bytes, secret to the two and their supernodes.
type Session = relay.ID

// NewSession makes the name of an attempt.
func NewSession() Session { return relay.NewID() }

// Kind is what a user who is told of another shall do.
type Kind uint8

// The kinds of introduction.
const (
	Open    Kind = 1 // send datagrams to the caller's UDP address
	Dial    Kind = 2 // connect to the caller's TCP address
	Through Kind = 3 // join the caller at relays
)

// Place is a session at a relay.
type Place struct {
	_     struct{} `cbor:",toarray"`
	Relay Supernode
	ID    relay.ID
}

// Introduction is what a user is told of another.
type Introduction struct {
	_       struct{} `cbor:",toarray"`
	Kind    Kind
	Session Session
	Purpose string         // the ALPN name of what the caller wants
	Callee  string         // who is told
	Cert    []byte         // the caller's, DER
	UDP     netip.AddrPort // the caller's external address
	TCP     netip.AddrPort // the caller's listener
	Places  []Place        // relays, in order: the first carries
}

type introduceRequest struct {
	_            struct{}  `cbor:",toarray"`
	At           Supernode // the callee's
	Relays       int       // how many the caller's supernode shall choose
	Exclude      []string  // supernodes that it shall not choose, at most maxExcluded
	Introduction Introduction
}

type introduceAnswer struct {
	_      struct{} `cbor:",toarray"`
	Places []Place
}
