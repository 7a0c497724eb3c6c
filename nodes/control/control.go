// Package control is the seam between the lab and a node, any node: JSON-RPC
// 2.0 over the node's standard input and output, one message a line. It is the
// only package under nodes that the lab imports, and the reference overlay is
// driven through it exactly like a node in another language.
//
// # Writing a node
//
// A node is an executable. The lab starts it inside its host's network
// namespace with a pipe on stdin and stdout. Each request is one line of JSON
// on stdin, each answer one line on stdout, at most [MaxLine] bytes long;
// whatever goes to stderr is kept as the node's log, and its last lines are
// shown when something fails. Requests may overlap; answers may come in any
// order. At end of file on stdin the node ends.
//
//	--> {"jsonrpc":"2.0","id":1,"method":"prepare","params":{"name":"alice","role":"client",…}}
//	<-- {"jsonrpc":"2.0","id":1,"result":{"functions":["login","search","call"],"public":{…}}}
//
// The lab calls, in this order:
//
//	prepare  once: who the node is and where ([PrepareParams]). The node makes
//	         its keys and answers with the functions that it offers and with
//	         what others need to know of it ("public", any JSON: the lab hands
//	         it on and does not look inside).
//	start    once every node has answered prepare: all nodes with what each
//	         made public ([StartParams]). The answer says that the node is in
//	         service: listening, and joined to whatever it joins.
//	login, search, call, hangup, and any function of the node's own
//	         ([LoginParams], [PeerParams], …), one after the other.
//	stop     the node leaves in order and then ends.
//
// A driver that comes back to nodes which stayed up, as gauntlet drive does, begins
// with the same prepare and start as the one before it, and is answered as that
// one was ([Repeat]).
//
// A function that the node doesn't have is left out of "functions"; the lab
// reports it as not offered, never as failed. A call to it is answered with
// the JSON-RPC error -32601. A function that was tried and failed is answered
// with an error of code [CodeFailed] whose message is the reason, in words.
//
// # Payload
//
// Every function carries a payload of random bytes, base64 in JSON, from its
// caller to its callee: the lab finds it again on the wire by its size. A node
// sends it whole, once, over the path that the function takes, encrypted or
// not, and never compressed: the greeting of an authorization, the subject of
// a call, padding of the credentials at login.
//
// # Claims
//
// A result may hold a [Path]: the path that the node believes the function
// took. It is a claim. The lab judges from the wire and fails the check if the
// claim says otherwise; a node that knows nothing of paths leaves it out.
package control

import "encoding/json"

// MaxLine bounds one message in either direction, in bytes with its newline.
const MaxLine = 1 << 20

// CodeFailed is the JSON-RPC error code of a function that was tried and
// failed; the message says why.
const CodeFailed = 1

// Names of the methods that the lab calls and of the notification that a node
// sends.
const (
	MethodPrepare = "prepare"
	MethodStart   = "start"
	MethodLogin   = "login"
	MethodSearch  = "search"
	MethodCall    = "call"
	MethodHangup  = "hangup"
	MethodStop    = "stop"
	MethodEvent   = "event"
)

// PrepareParams tell a node who it is.
type PrepareParams struct {
	Name      string   `json:"name"`      // of the node and of its host
	Role      string   `json:"role"`      // for the reference overlay: login, update, supernode, client
	Addresses []string `json:"addresses"` // of its host, as the host sees them
	Dir       string   `json:"dir"`       // a folder of its own, empty at first, for all that it keeps
	Profile   string   `json:"profile"`   // nec2006, baset2004, or a name that the node knows
	// Settings are the scenario's for this node, any JSON that the node knows.
	// Those of the reference overlay, all of which may be left out:
	//
	//	client     predict         true: the ports that a symmetric NAT gives
	//	                           next are guessed, where it gives them in order
	//	           punch_timeout   seconds for which a call looks for a direct path
	//	supernode  relay_sessions  relayed at once; one more is refused
	//	           relay_rate      bytes/s of media of one end of a session
	Settings json.RawMessage `json:"settings,omitempty"`
}

// PrepareResult is the node's answer: what it can do, and what the others must
// know of it.
type PrepareResult struct {
	Functions []string        `json:"functions"`          // offered: login, search, call, …
	Accounts  bool            `json:"accounts,omitempty"` // the node keeps user accounts and wants them at start
	Public    json.RawMessage `json:"public,omitempty"`
}

// Peer is a node of the scenario as every other node is told of it.
type Peer struct {
	Name      string          `json:"name"`
	Role      string          `json:"role"`
	Addresses []string        `json:"addresses,omitempty"` // empty for a node whose host has no public address
	Public    json.RawMessage `json:"public,omitempty"`
}

// Account is a user that the lab made up.
type Account struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// StartParams put a node in service.
type StartParams struct {
	Peers    []Peer    `json:"peers"`
	Accounts []Account `json:"accounts,omitempty"` // for a node that said it keeps accounts
}

// LoginParams ask a client to join the overlay as a user.
type LoginParams struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Payload  []byte `json:"payload"` // travels sealed beside the credentials
}

// LoginResult is the claim, and the middlebox that the node believes to be
// behind.
type LoginResult struct {
	Path      *Path      `json:"path,omitempty"`
	Middlebox *Middlebox `json:"middlebox,omitempty"`
}

// Middlebox is a node's own finding about the box in front of it, in the words
// of RFC 4787.
type Middlebox struct {
	UDP       bool   `json:"udp"`                 // datagrams are answered at all
	Mapping   string `json:"mapping,omitempty"`   // none, endpoint-independent, address-dependent, address-and-port-dependent
	Filtering string `json:"filtering,omitempty"` // endpoint-independent, address-dependent, address-and-port-dependent
}

// PeerParams ask a client for a function towards another user. search, call
// and any function of a foreign node take it.
type PeerParams struct {
	Callee  string `json:"callee"` // the user's name, which is the node's name
	Payload []byte `json:"payload"`
}

// PeerResult is the claim of a function towards another user.
type PeerResult struct {
	Path *Path `json:"path,omitempty"`
}

// CallResult is the answer to call, given once both ends are connected and
// the media path and all standby relays are in place. The media load runs from
// then until hangup, both ways.
type CallResult struct {
	Call       string `json:"call"` // to name the call in hangup
	Signalling *Path  `json:"signalling,omitempty"`
	Media      *Path  `json:"media,omitempty"`
}

// HangupParams name the call to end.
type HangupParams struct {
	Call string `json:"call"`
}

// HangupResult is what the caller's side counted, and the media path as it
// stood at the end.
type HangupResult struct {
	Media    *Path `json:"media,omitempty"`
	Sent     int   `json:"sent"`     // media packets
	Received int   `json:"received"` // media packets, in time or not
	// Rejected are packets that came where the other end's media did but were
	// changed on their way, came twice, or are not the other end's at all.
	Rejected int `json:"rejected,omitempty"`
}

// Path is a claimed path. The words are those of the lab's verdict.
type Path struct {
	Path     string `json:"path"` // direct, reversed, punched, relayed, failed
	Relays   int    `json:"relays,omitempty"`
	Carrying int    `json:"carrying,omitempty"`
	Hops     int    `json:"hops,omitempty"`
	Legs     []Leg  `json:"legs,omitempty"` // from the caller on, whoever opened them
}

// Leg is one hop of a path, in the direction of the payload.
type Leg struct {
	From      string `json:"from,omitempty"` // node names, where the node knows them
	To        string `json:"to,omitempty"`
	Transport string `json:"transport"` // udp, tcp
}

// Event is a notification of a node: something that happened by itself.
type Event struct {
	Name   string          `json:"name"`
	Detail json.RawMessage `json:"detail,omitempty"`
}
