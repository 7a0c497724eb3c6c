package role

import (
	"net/netip"

	"gauntlet/nodes/membership"
)

// Methods of the link between a client and a supernode, or two supernodes.
const (
	methodSupernodes   = "supernodes"    // client: all supernodes, and how many users are on line
	methodAttach       = "attach"        // client: here is my certificate
	methodProbe        = "probe"         // client: can I be reached from outside?
	methodElsewhere    = "elsewhere"     // client: have me answered from elsewhere
	methodProbeFor     = "probe-for"     // supernode: probe this client of mine
	methodElsewhereFor = "elsewhere-for" // supernode: answer this client of mine
)

// listRequest is a datagram's: the list of supernodes, please.
type listRequest struct {
	_ struct{} `cbor:",toarray"`
}

// maxListed bounds the supernodes in the answer to a listRequest: at 60 bytes
// each they fit a datagram no larger than the request.
const maxListed = 15

// listAnswer lists supernodes, and the address that the request came from.
type listAnswer struct {
	_          struct{} `cbor:",toarray"`
	Supernodes []membership.Supernode
	Observed   netip.AddrPort
}

// supernodesAnswer is the whole list.
type supernodesAnswer struct {
	_          struct{} `cbor:",toarray"`
	Supernodes []membership.Supernode
	Online     int // users at all supernodes
}

// attachLabel names the exporter value that a proof of identity signs, and
// attachDomain goes before it (RFC 5705 §4).
const (
	attachLabel  = "EXPERIMENTAL-gauntlet-attach"
	attachDomain = "gauntlet attach/1"
	attachSize   = 32
)

// attachRequest binds a link to a user.
type attachRequest struct {
	_     struct{} `cbor:",toarray"`
	Cert  []byte
	Proof []byte // Ed25519 over attachDomain and the TLS exporter
	TCP   uint16 // the port on which the client listens
}

// attachAnswer says how the supernode sees the link.
type attachAnswer struct {
	_        struct{} `cbor:",toarray"`
	Observed netip.AddrPort
}

// hereRequest is a datagram's: this is my UDP address. The sender is known
// by its certificate.
type hereRequest struct {
	_ struct{} `cbor:",toarray"`
}

type hereAnswer struct {
	_        struct{} `cbor:",toarray"`
	Observed netip.AddrPort
}

// probeRequest asks for a test whether the client can be reached. The
// supernodes to which it has sent datagrams are left out, as their datagrams
// would get in anyway.
type probeRequest struct {
	_       struct{} `cbor:",toarray"`
	UDP     bool
	Exclude []membership.ID
}

// probeForRequest has another supernode do the test.
type probeForRequest struct {
	_    struct{}       `cbor:",toarray"`
	Cert []byte         // the client's
	UDP  netip.AddrPort // zero: not tested
	TCP  netip.AddrPort // zero: not tested
}

// probeAnswer is the verdict.
type probeAnswer struct {
	_   struct{} `cbor:",toarray"`
	UDP bool
	TCP bool
	By  string // the supernode that tested
}

// udpProbe is the datagram of a probe, udpProbed its answer.
type udpProbe struct {
	_ struct{} `cbor:",toarray"`
}

type udpProbed struct {
	_ struct{} `cbor:",toarray"`
}

// elsewhereRequest asks for a STUN response from elsewhere.
type elsewhereRequest struct {
	_            struct{} `cbor:",toarray"`
	ID           [12]byte // STUN transaction
	OtherAddress bool
	Exclude      []membership.ID
}

type elsewhereForRequest struct {
	_  struct{} `cbor:",toarray"`
	ID [12]byte
	To netip.AddrPort
}
