package profile

import "time"

// nec2006 is the seed's version with the timers that a modern client would
// choose: it waits for silence no longer than a few round trips.
func nec2006() *Profile {
	return &Profile{
		Name:             NEC2006,
		Bootstrap:        1,
		BootstrapMore:    3,
		UDPAnswer:        300 * time.Millisecond,
		UDPRetransmit:    100 * time.Millisecond,
		TCPProbes:        3,
		ConnectTimeout:   time.Second,
		FallbackPorts:    []uint16{80, 443}, // BS04 Fig 2 (papers.md §2.7)
		LoginRounds:      2,
		LoginPause:       500 * time.Millisecond,
		AnswerTimeout:    3 * time.Second,
		LoginTimeout:     20 * time.Second,
		KeepAlive:        5 * time.Second,
		KeepAliveTimeout: 2 * time.Second,
		UDPKeepAlive:     15 * time.Second,
		Reconnect:        100 * time.Millisecond,
		ReconnectMax:     5 * time.Second,
		STUNWait:         300 * time.Millisecond,
		ProbeTimeout:     400 * time.Millisecond,
		JoinTimeout:      30 * time.Second,
		JoinRetry:        50 * time.Millisecond,
		Responsible:      3,
		ReplayWindow:     2 * time.Minute,
		DatagramRate:     400,
		DatagramBurst:    400,
		SessionValid:     24 * time.Hour,
		SupernodeValid:   30 * 24 * time.Hour,
		RelayBytes:       128 << 10,
		RelayTime:        10 * time.Second,
		HostCache:        200, // BS04, HV11 (papers.md L4)
		Session:          nec2006Session(),
	}
}

// baset2004 has the published values of the 2004 client where there are any.
func baset2004() *Profile {
	p := nec2006()
	p.Name = Baset2004
	p.Bootstrap = 4                    // L5: the first login asks at least 4
	p.BootstrapMore = 3                // L5: 7 in all
	p.UDPAnswer = 5 * time.Second      // L2
	p.UDPRetransmit = 2 * time.Second  // no published value
	p.ConnectTimeout = 5 * time.Second // L2, the same wait as over UDP
	p.LoginRounds = 5                  // L2: the first and four more
	p.LoginPause = 6 * time.Second     // L2
	p.AnswerTimeout = 20 * time.Second // no published value
	p.LoginTimeout = 5 * time.Minute   // L2: five rounds must fit
	p.KeepAlive = time.Minute          // L12
	p.KeepAliveTimeout = 30 * time.Second
	p.UDPKeepAlive = 20 * time.Second
	p.Reconnect = time.Second
	p.ReconnectMax = time.Minute
	p.STUNWait = 2 * time.Second
	p.ProbeTimeout = 5 * time.Second
	p.SupernodeValid = 30 * 24 * time.Hour
	p.Session = baset2004Session()
	return p
}
