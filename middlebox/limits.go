package middlebox

import "time"

// DefaultUDPTimeout is how long an idle UDP mapping lives unless a behaviour
// says otherwise: what RFC 4787 §4.3, REQ-5 recommends. At least 2 minutes are
// required there; devices go down to 20 s (Ford, Srisuresh and Kegel 2005).
const DefaultUDPTimeout = 5 * time.Minute

// UDPStream is for how long a UDP flow has UDPUnreplied, whatever comes back: one
// that is older is a stream from the first packet on that follows an answer.
// It is the kernel's (net/netfilter/nf_conntrack_proto_udp.c).
const UDPStream = 2 * time.Second

// DefaultTCPEstablished is how long an idle established TCP connection keeps
// its mapping unless a behaviour says otherwise: the least that RFC 5382 §5,
// REQ-5 allows.
const DefaultTCPEstablished = 2*time.Hour + 4*time.Minute

// DefaultTCPTransitory is the same of a TCP connection that is not yet
// established or is closing: the least that RFC 5382 §5, REQ-5 allows.
const DefaultTCPTransitory = 4 * time.Minute

// TCPWaiting and TCPReset are how long connection tracking remembers a TCP
// connection at most that has ended, by a FIN of each side and by a reset:
// TCPTransitory, if that is less. They are the kernel's
// (nf_conntrack_tcp_timeout_time_wait and _close).
const (
	TCPWaiting = 2 * time.Minute
	TCPReset   = 10 * time.Second
)

// Ports that a NAT gives out by itself: all but the well-known ones, into which
// no internal port above them may be mapped (RFC 4787 §4.2.1).
const (
	firstPort = 1024
	ports     = 1<<16 - firstPort
)

// DefaultPortBlock is how many external ports an internal address has with
// BlockPorts. With 1024, a port's number divided by 1024 is one less than that of
// the address in its network, and a box serves 63. RFC 6888, REQ-4 and RFC 7422
// leave the number to the operator.
const DefaultPortBlock = 1024

// portTries is how often a box tries a port before it gives up. Of 64,512
// ports with 10,000 taken, 16 random ones in a row are taken once in 10^13.
const portTries = 16
