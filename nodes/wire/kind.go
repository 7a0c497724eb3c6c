package wire

// Kinds of sealed datagrams. A kind below Answer is a request or a notice; an
// answer to kind k has kind k|Answer.
const (
	KindList   uint8 = 1  // client to supernode, before login: the list of supernodes
	KindHere   uint8 = 2  // client to its own supernode: here is my UDP address
	KindProbe  uint8 = 3  // supernode to client: can you be reached?
	KindSearch uint8 = 16 // the first of the kinds of search (package directory)
	KindCall   uint8 = 32 // the first of the kinds of calls and relays

	// Answer is the bit that marks an answer.
	Answer uint8 = 0x80
)
