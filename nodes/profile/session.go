package profile

import "time"

// Session holds the numbers of search, relays and calls.
type Session struct {
	// Asked is how many supernodes a search asks for the callee's record
	// first; AskedMore how many it asks next if none of them knew it. Zero:
	// no second round.
	Asked     int
	AskedMore int
	// RecordLife is how long a user is found after it was last seen.
	RecordLife time.Duration
	// RecordRefresh is the interval at which a client publishes its record
	// again while it is logged in.
	RecordRefresh time.Duration
	// SearchTimeout bounds a search with its authorization exchange.
	SearchTimeout time.Duration

	// Punch says whether UDP hole punching is tried at all.
	Punch bool
	// PunchTimeout bounds the attempt to reach the other end over UDP.
	PunchTimeout time.Duration
	// DirectHeadStart is how long, after both ends know each other's
	// addresses, a relay carries no media although it could: most direct paths
	// are found by then, and nothing of their calls crosses a relay. Zero for
	// none. Where no direct path can be, relays carry at once.
	DirectHeadStart time.Duration
	// CheckInterval is the pace of datagrams during that attempt.
	CheckInterval time.Duration
	// ChunkWindow is how many datagrams of a greeting may be unacknowledged.
	ChunkWindow int

	// SearchRelays and Relays are how many relays both ends hold after a
	// search and during a call.
	SearchRelays int
	Relays       int
	// FallbackHold is how long the relays of a search are held.
	FallbackHold time.Duration
	// FallbackKeepAlive is the interval of the small message on each of them.
	FallbackKeepAlive time.Duration
	// StandbyInterval is the same on the standby relays of a call.
	StandbyInterval time.Duration

	// CallTimeout bounds the set-up of a call up to its accept, from which
	// the media path is decided.
	CallTimeout time.Duration
	// MediaTimeout is how long a call waits for the first media packet.
	MediaTimeout time.Duration
	// SignalKeepAlive is the interval of the refresh on a call's signalling
	// connection, which is dead after SignalTimeout without anything.
	SignalKeepAlive time.Duration
	SignalTimeout   time.Duration
}

func nec2006Session() Session {
	return Session{
		Asked:             3,                // seed (papers.md §2.6)
		RecordLife:        72 * time.Hour,   // S4
		RecordRefresh:     30 * time.Minute, // no published value
		SearchTimeout:     8 * time.Second,
		Punch:             true, // seed (papers.md §2.4)
		PunchTimeout:      800 * time.Millisecond,
		DirectHeadStart:   500 * time.Millisecond, // two round trips of 200 ms and some
		CheckInterval:     20 * time.Millisecond,  // RFC 8445 §14.2 wants 5 ms at least
		ChunkWindow:       16,
		SearchRelays:      2, // seed (papers.md §2.3)
		Relays:            4,
		FallbackHold:      30 * time.Second,
		FallbackKeepAlive: 10 * time.Second,
		StandbyInterval:   time.Second / 3, // C4
		CallTimeout:       3 * time.Second,
		MediaTimeout:      2 * time.Second,
		SignalKeepAlive:   2 * time.Second,
		SignalTimeout:     6 * time.Second,
	}
}

func baset2004Session() Session {
	s := nec2006Session()
	s.Asked = 4     // S1
	s.AskedMore = 8 // S1
	s.Punch = false // papers.md §2.4: relayed where an end is restricted
	s.SearchTimeout = time.Minute
	s.CallTimeout = 30 * time.Second
	s.MediaTimeout = 10 * time.Second
	s.FallbackHold = time.Minute
	s.SignalKeepAlive = 10 * time.Second
	s.SignalTimeout = 30 * time.Second
	return s
}
