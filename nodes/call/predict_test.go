package call

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pion "github.com/pion/stun/v3"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/stun"
)

// A port counts as one after the last only if the box gave it later.
func TestAhead(t *testing.T) {
	last := netip.MustParseAddrPort("198.18.1.1:1040")
	for seen, want := range map[string]bool{
		"198.18.1.1:1041": true, "198.18.1.1:1100": true,
		"198.18.1.1:1040": false, "198.18.1.1:1027": false, // given before
		"198.18.1.2:1041": false, // the box has another address now
	} {
		if got := ahead(last, netip.MustParseAddrPort(seen)); got != want {
			t.Errorf("%s after %s: %v, want %v", seen, last, got, want)
		}
	}
	if !ahead(netip.MustParseAddrPort("198.18.1.1:65530"), netip.MustParseAddrPort("198.18.1.1:1024")) {
		t.Error("a sequence that begins anew is not followed")
	}
}

// town is a client behind a symmetric NAT, a neighbour behind the same, and
// supernodes outside that answer STUN.
type town struct {
	t         *testing.T
	service   *Service
	own       *datagram.Socket
	neighbour *datagram.Socket
	peer      network.Network
	servers   []netip.AddrPort // as the client knows them; they are asked at their alternate ports
	away      uint16           // port of the next place that nobody has sent to
	asked     atomic.Int32     // STUN requests of the client's on their way to supernodes
	came      atomic.Int32     // and that came there
	// before, if not nil, is called with the number of each of those requests,
	// once all before it have come there and before the box sees it.
	before func(request int32)
}

func newTown(t *testing.T, nat *memory.NAT, supernodes int) *town {
	t.Helper()
	p, err := profile.Named(profile.NEC2006)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	town := &town{t: t, away: 10_000}
	net := memory.New(memory.WithFilter(func(_ string, from, to netip.AddrPort) bool {
		if town.before == nil || from != town.own.LocalAddr() || !slices.Contains(town.servers, netip.AddrPortFrom(to.Addr(), to.Port()-1)) {
			return true
		}
		n := town.asked.Add(1)
		for town.came.Load() < n-1 {
			time.Sleep(time.Millisecond) // of the bubble
		}
		town.before(n)
		return true
	}))
	town.peer = net.Host("peer", netip.MustParseAddr("198.18.6.6"))
	listen := func(host network.Network, at netip.AddrPort) *datagram.Socket {
		s, err := datagram.Listen(context.Background(), host, at, datagram.Config{Keys: keys, Profile: p})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	inside := func(addr string) *datagram.Socket {
		a := netip.MustParseAddr(addr)
		return listen(net.Behind(nat, addr, a), netip.AddrPortFrom(a, 4000))
	}
	town.own, town.neighbour = inside("10.0.0.2"), inside("10.0.0.3")
	for n := range supernodes {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(11 + n)}), 33033)
		server := listen(net.Host(at.String(), at.Addr()), stun.Alternate(at))
		server.HandleSTUN(func(netip.AddrPort, *pion.Message) bool {
			town.came.Add(1)
			return false
		})
		stun.Serve(server)
		town.servers = append(town.servers, at)
	}
	town.service = &Service{asked: map[netip.AddrPort]time.Time{}, client: &directory.Client{
		Profile: p, Socket: town.own, Log: slog.New(slog.DiscardHandler),
		Servers: func() []netip.AddrPort { return town.servers },
	}}
	return town
}

// takes has a socket send to so many new places, each of which takes a port.
func (w *town) takes(s *datagram.Socket, ports int) {
	for range ports {
		w.away++
		if err := s.WriteTo([]byte{0xff}, netip.AddrPortFrom(netip.MustParseAddr("198.18.7.7"), w.away)); err != nil {
			w.t.Error(err)
		}
	}
}

// next is the port that the box gives the client for a place that is new to it.
func (w *town) next() uint16 {
	w.t.Helper()
	w.away++
	at := netip.AddrPortFrom(w.peer.Addrs()[0], w.away)
	conn, err := w.peer.ListenPacket(w.t.Context(), at)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if err := w.own.WriteTo([]byte{0xff}, at); err != nil {
		w.t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	_, from, err := conn.ReadFrom(make([]byte, 1))
	if err != nil {
		w.t.Fatal(err)
	}
	return network.AddrPort(from).Port()
}

// predict predicts, and says how many supernodes that took.
func (w *town) predict() (ports []uint16, asked int32) {
	w.t.Helper()
	before := w.came.Load()
	for _, a := range w.service.predict(w.t.Context()) {
		ports = append(ports, a.Port())
	}
	return ports, w.came.Load() - before
}

func symmetric(sequential bool, timeout time.Duration) *memory.NAT {
	return &memory.NAT{External: netip.MustParseAddr("198.18.1.1"), Mapping: memory.AddressPortDependent,
		Filtering: memory.AddressPortDependent, Sequential: sequential, Timeout: timeout}
}

// TestPredict predicts the next ports of a box that gives them out in sequence,
// with others that take some at every place where they may: of the ports foretold,
// the one that comes is as far along as others took.
func TestPredict(t *testing.T) {
	for name, c := range map[string]struct {
		nat    *memory.NAT
		during map[int32]int // ports that the neighbour takes before the client's request of that number
		after  int           // and after the prediction
		at     int           // which of the ports foretold comes; -1: none was foretold, -2: none of them
	}{
		"quiet":                                  {nat: symmetric(true, 0), at: 0},
		"one between prediction and use":         {nat: symmetric(true, 0), after: 1, at: 1},
		"as many as are foretold, but one":       {nat: symmetric(true, 0), after: predictedPorts - 1, at: predictedPorts - 1},
		"as many as are foretold":                {nat: symmetric(true, 0), after: predictedPorts, at: -2},
		"one between the requests":               {nat: symmetric(true, 0), during: map[int32]int{3: 1}, at: 0},
		"one before each, and one after":         {nat: symmetric(true, 0), during: map[int32]int{1: 1, 2: 1, 3: 1}, after: 1, at: 1},
		"too many before the last: no sequence":  {nat: symmetric(true, 0), during: map[int32]int{3: freshAsked}, at: -1},
		"a box that scatters: no sequence":       {nat: symmetric(false, 0), at: -1},
		"many before all requests, which is all": {nat: symmetric(true, 0), during: map[int32]int{1: 100}, at: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, c.nat, 6)
				w.before = func(n int32) { w.takes(w.neighbour, c.during[n]) }
				got, asked := w.predict()
				if asked != freshAsked {
					t.Errorf("asked %d supernodes, want %d", asked, freshAsked)
				}
				if (c.at == -1) != (got == nil) || got != nil && len(got) != predictedPorts {
					t.Fatalf("foretold %v", got)
				}
				w.takes(w.neighbour, c.after)
				if at := slices.Index(got, w.next()); at != max(c.at, -1) {
					t.Errorf("what came was number %d of %v, want %d", at, got, max(c.at, -1))
				}
			})
		})
	}
}

// TestPredictAgain predicts a second time: one supernode tells where the
// sequence has got to, unless what it sees was given before; then others are
// asked, and when none of them knows, the sequence is found anew.
func TestPredictAgain(t *testing.T) {
	for name, c := range map[string]struct {
		between int   // ports that the neighbour takes before
		known   []int // supernodes that the client has sent to before all
		asked   int32
	}{
		"quiet":                         {asked: 1},
		"a neighbour between":           {between: 40, asked: 1},
		"the first was known":           {known: []int{3}, between: 2, asked: 2},
		"two were known":                {known: []int{3, 4}, between: 2, asked: 3},
		"all that are tried were known": {known: []int{3, 4, 5}, asked: freshAsked + freshAsked},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, symmetric(true, 0), 12)
				for _, n := range c.known {
					if err := w.own.WriteTo([]byte{0xff}, stun.Alternate(w.servers[n])); err != nil {
						t.Fatal(err)
					}
				}
				if got, asked := w.predict(); got == nil || asked != freshAsked {
					t.Fatalf("foretold %v after asking %d", got, asked)
				}
				w.takes(w.neighbour, c.between)
				got, asked := w.predict()
				if asked != c.asked {
					t.Errorf("asked %d supernodes, want %d", asked, c.asked)
				}
				if next := w.next(); len(got) == 0 || got[0] != next {
					t.Errorf("foretold %v, and %d came", got, next)
				}
			})
		})
	}
}

// TestPredictWithoutServers has all supernodes asked: nothing is foretold until
// the box has forgotten them.
func TestPredictWithoutServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, symmetric(true, time.Minute), freshAsked)
		if got, _ := w.predict(); got == nil {
			t.Fatal("nothing is foretold at first")
		}
		if got, asked := w.predict(); got != nil || asked != 0 {
			t.Errorf("foretold %v after asking %d; all were asked a moment ago", got, asked)
		}
		time.Sleep(forgotten + time.Second)
		got, _ := w.predict()
		if next := w.next(); len(got) == 0 || got[0] != next {
			t.Errorf("foretold %v, and %d came", got, next)
		}
	})
}
