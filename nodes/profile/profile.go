// Package profile holds every number of the overlay's protocols that varies
// between versions, in one struct with two presets.
package profile

import (
	"fmt"
	"time"
)

// Profile is one version's numbers. All durations are positive; a zero means
// what the field's comment says, and nothing else.
type Profile struct {
	Name string

	// Bootstrap is how many supernodes are asked over UDP at first for the
	// list of supernodes.
	Bootstrap int
	// BootstrapMore is how many others are asked when none of those answered.
	// After that UDP is taken as blocked.
	BootstrapMore int
	// UDPAnswer is how long each of those rounds waits.
	UDPAnswer time.Duration
	// UDPRetransmit is the first retransmission interval of a request over
	// UDP; it doubles each time (RFC 8489 §6.2.1 has the same shape).
	UDPRetransmit time.Duration
	// TCPProbes is how many supernodes are tried over TCP where UDP is
	// blocked; all connections but one are torn down.
	TCPProbes int
	// ConnectTimeout bounds one TCP connect with its TLS handshake.
	ConnectTimeout time.Duration
	// FallbackPorts are tried in order after the given TCP port failed.
	FallbackPorts []uint16
	// LoginRounds is how often the whole search for a supernode is tried.
	LoginRounds int
	// LoginPause is the wait between two rounds.
	LoginPause time.Duration
	// AnswerTimeout bounds one request over a link.
	AnswerTimeout time.Duration
	// LoginTimeout bounds the whole login, half of it the login server's answer.
	LoginTimeout time.Duration

	// KeepAlive is the interval of the refresh on the TCP link to the
	// supernode; a link is dead when one is not answered in KeepAliveTimeout.
	KeepAlive        time.Duration
	KeepAliveTimeout time.Duration
	// UDPKeepAlive is the interval of the datagram that holds the NAT binding
	// of the node's UDP socket (not below 15 s: RFC 8445 §11).
	UDPKeepAlive time.Duration
	// Reconnect is the first wait before a lost supernode is replaced; it
	// doubles up to ReconnectMax.
	Reconnect    time.Duration
	ReconnectMax time.Duration

	// STUNWait is how long a test of filtering waits for an answer that may
	// never come.
	STUNWait time.Duration
	// ProbeTimeout bounds the test whether a client can be reached from
	// outside.
	ProbeTimeout time.Duration

	// JoinTimeout bounds a supernode's start: enrolment and gossip.
	JoinTimeout time.Duration
	// JoinRetry is the wait between two attempts of either.
	JoinRetry time.Duration
	// Responsible is how many supernodes keep a user's record.
	Responsible int

	// ReplayWindow is how old, or how far in the future, a sealed datagram
	// may be.
	ReplayWindow time.Duration
	// DatagramRate and DatagramBurst limit sealed datagrams and STUN requests
	// from one source address, per second and at once.
	DatagramRate  float64
	DatagramBurst int

	// SessionValid is how long a client's certificate lasts, SupernodeValid a
	// supernode's.
	SessionValid   time.Duration
	SupernodeValid time.Duration
	// RelayBytes and RelayTime bound one login relayed by a supernode.
	RelayBytes int64
	RelayTime  time.Duration

	// HostCache is how many supernodes the host cache holds.
	HostCache int

	Session
}

// Names of the profiles.
const (
	NEC2006   = "nec2006"
	Baset2004 = "baset2004"
)

// Named returns a profile by its name; the empty name is the default one.
func Named(name string) (*Profile, error) {
	switch name {
	case "", NEC2006:
		return nec2006(), nil
	case Baset2004:
		return baset2004(), nil
	}
	return nil, fmt.Errorf("unknown profile %q, want %s or %s", name, NEC2006, Baset2004)
}
