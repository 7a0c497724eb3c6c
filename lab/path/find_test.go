package path_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/path"
)

const (
	none = evidence.NoFiltering
	eif  = evidence.EndpointIndependent
	adf  = evidence.AddressDependent
	apdf = evidence.AddressAndPortDependent

	payload = 40_000 // bytes over TCP
	small   = 900    // bytes in one datagram
)

// Where things are, seen from the internet.
const (
	homeA = "198.18.1.1"
	homeB = "198.18.1.2"
	sn1   = "198.18.0.11"
	sn2   = "198.18.0.12"
)

func at(address string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port)
}

// scene is alice behind home-a, bob behind home-b, and supernodes outside.
type scene struct {
	*evidencetest.Recording
	t        *testing.T
	exchange evidence.Exchange
}

func newScene(t *testing.T, a, b evidence.Filtering) *scene {
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "10.0.1.2", "home-a"), evidencetest.Host("bob", "10.0.2.2", "home-b"),
			evidencetest.Host("sn1", sn1, "", "supernode"), evidencetest.Host("sn2", sn2, "", "supernode"),
			evidencetest.Host("sn3", "198.18.0.13", "", "supernode"),
		},
		Boxes: []evidence.Box{
			evidencetest.Box("home-a", "", homeA, "10.0.1.0/24"), evidencetest.Box("home-b", "", homeB, "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{evidencetest.NAT("home-a", a), evidencetest.NAT("home-b", b)},
	})
	return &scene{Recording: r, t: t, exchange: evidence.Exchange{ID: "1", Function: "search", Caller: "alice", Callee: "bob"}}
}

// begin starts the exchange after bob's binding is made.
func (s *scene) begin(bytes int64) *scene {
	s.Socket(evidence.UDP, "bob", 5000).Send(at(sn1, 3478), 20)
	s.exchange.Since, s.exchange.From, s.exchange.Payload = s.Now, s.Now, bytes
	return s
}

func (s *scene) find() path.Finding {
	s.exchange.To = s.Now
	return path.Find(s.Read(), s.exchange)
}

// expect checks record and conclusiveness.
func (s *scene) expect(want path.Record, doubt string) path.Finding {
	s.t.Helper()
	got := s.find()
	if doubt == "" {
		if diff := cmp.Diff(want, got.Record); diff != "" {
			s.t.Errorf("record (-want +got):\n%s", diff)
		}
		if got.Inconclusive != "" {
			s.t.Errorf("inconclusive: %s", got.Inconclusive)
		}
	} else if !strings.Contains(got.Inconclusive, doubt) {
		s.t.Errorf("inconclusive: %q, want something about %q", got.Inconclusive, doubt)
	}
	if s.t.Failed() {
		s.t.Logf("notes:\n%s", strings.Join(got.Notes, "\n"))
	}
	return got
}

func between(kind, transport string) path.Record {
	return path.Record{Path: kind, Legs: []path.Leg{{From: "alice", To: "bob", Transport: transport}}}
}

func relayed(transport string, hosts ...string) path.Record {
	r := path.Record{Path: path.Relayed, Relays: len(hosts), Carrying: 1, Hops: len(hosts), Legs: []path.Leg{}}
	last := "alice"
	for _, h := range append(hosts, "bob") {
		r.Legs = append(r.Legs, path.Leg{From: last, To: h, Transport: transport})
		last = h
	}
	return r
}

func TestDirect(t *testing.T) {
	for _, filtering := range []evidence.Filtering{none, eif} {
		s := newScene(t, apdf, filtering).begin(small)
		s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
		s.expect(between(path.Direct, evidence.UDP), "")
	}
}

// TestReversed: only alice is free; bob is told to open the way.
func TestReversed(t *testing.T) {
	s := newScene(t, eif, apdf)
	s.Socket(evidence.UDP, "alice", 4000).Send(at(sn1, 3478), 20)
	s.begin(small)
	s.Socket(evidence.UDP, "bob", 5000).Send(at(homeA, 4000), 50)
	s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
	s.expect(between(path.Reversed, evidence.UDP), "")
}

// TestReversedTCP: a NAT that lets in everybody's UDP is closed to TCP, so that
// the callee has to connect.
func TestReversedTCP(t *testing.T) {
	s := newScene(t, none, eif).begin(payload)
	s.exchange.Caller = "sn3"
	s.Connect("bob", 7001, at("198.18.0.13", 443)).Send("sn3", payload)
	s.expect(path.Record{Path: path.Reversed, Legs: []path.Leg{{From: "sn3", To: "bob", Transport: evidence.TCP}}}, "")
}

func TestPunched(t *testing.T) {
	for _, filtering := range []evidence.Filtering{adf, apdf} {
		s := newScene(t, filtering, filtering).begin(small)
		alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5000)
		alice.Send(at(homeB, 5000), 50)
		bob.Send(at(homeA, 4000), 50)
		alice.Send(at(homeB, 5000), small)
		got := s.expect(between(path.Punched, evidence.UDP), "")
		if len(got.Drops) != 1 || got.Drops[0].Router != "home-b" {
			t.Errorf("drops %+v, want alice's first at home-b", got.Drops)
		}
		if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, "1 dropped, the first of alice at home-b by unsolicited") {
			t.Errorf("the notes do not tell of the drop:\n%s", notes)
		}
	}
}

// TestAddressDependent: the filter lets any port of an asked address in, but
// only for the internal endpoint that asked.
func TestAddressDependent(t *testing.T) {
	for _, c := range []struct {
		name  string
		port  uint16 // bob's port that asks alice's address
		doubt string
	}{{"same endpoint", 5000, ""}, {"another endpoint", 5001, "home-b filters (address-dependent)"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, none, adf).begin(small)
			s.Leaky["home-b"] = true
			s.Socket(evidence.UDP, "bob", c.port).Send(at(homeA, 9), 50) // another port of alice's box
			s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
			s.expect(between(path.Reversed, evidence.UDP), c.doubt)
		})
	}
}

// TestUnasked: a box that lets in what its filtering should stop makes the
// finding inconclusive.
func TestUnasked(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(small)
	s.Leaky["home-b"] = true
	s.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), small)
	s.Socket(evidence.UDP, "bob", 5000).Send(at(homeA, 4000), small)
	s.expect(path.Record{}, "home-b filters (address-and-port-dependent) and yet let in a packet of alice")
}

// relay opens a connection of each end to a relay and moves bytes over it.
func (s *scene) relay(host string, port uint16, bytes int) (a, b *evidencetest.Conn) {
	address := s.World.Host(host).Addresses[0].String()
	a, b = s.Connect("alice", port, at(address, 443)), s.Connect("bob", port, at(address, 443))
	if bytes > 0 {
		a.Send("alice", bytes)
		b.Send(host, bytes)
	}
	return a, b
}

func TestRelayedTCP(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	s.relay("sn1", 7001, payload)
	s.relay("sn2", 7002, 0)            // stands by
	gone, _ := s.relay("sn3", 7003, 0) // does not any more
	gone.Close("alice")
	want := relayed(evidence.TCP, "sn1")
	want.Relays = 2
	s.expect(want, "")
}

// TestOldConnectionIsNoRelay: both ends' connections to one supernode from
// before the exchange do not count.
func TestOldConnectionIsNoRelay(t *testing.T) {
	s := newScene(t, none, none)
	a, b := s.relay("sn2", 7002, 0)
	s.begin(payload)
	s.relay("sn3", 7003, 0)
	s.relay("sn1", 7001, payload)
	a.Send("alice", 19)
	b.Send("bob", 19)
	want := relayed(evidence.TCP, "sn1")
	want.Relays = 2
	s.expect(want, "")
}

func TestRelayedUDP(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(2000)
	s.Symmetric["home-a"], s.Symmetric["home-b"] = true, true
	alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5001)
	relay := s.Socket(evidence.UDP, "sn1", 9000)
	_, a := alice.Send(at(sn1, 9000), 10)
	_, b := bob.Send(at(sn1, 9000), 10)
	for range 40 {
		alice.Send(at(sn1, 9000), 67)
		relay.Send(b, 67)
		bob.Send(at(sn1, 9000), 67)
		relay.Send(a, 67)
	}
	s.exchange.BothWays = true
	s.expect(relayed(evidence.UDP, "sn1"), "")
}

func TestTwoRelaysInParallel(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	s.relay("sn1", 7001, payload)
	s.relay("sn2", 7002, payload)
	want := relayed(evidence.TCP, "sn1")
	want.Relays, want.Carrying = 2, 2
	want.Legs = append(want.Legs, relayed(evidence.TCP, "sn2").Legs...)
	s.expect(want, "")
}

func TestChain(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	s.Connect("alice", 7001, at(sn1, 443)).Send("alice", payload)
	s.Connect("sn1", 7001, at(sn2, 443)).Send("sn1", payload)
	s.Connect("bob", 7001, at(sn2, 443)).Send("sn2", payload)
	s.expect(relayed(evidence.TCP, "sn1", "sn2"), "")
}

func TestFailed(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(small)
	s.Block["home-a"] = evidence.UDP
	alice := s.Socket(evidence.UDP, "alice", 4000)
	for range 3 {
		alice.Send(at(homeB, 5000), small)
	}
	got := s.expect(path.Record{Path: path.Failed, Legs: []path.Leg{}}, "")
	if len(got.Drops) != 3 || got.Drops[0].Rule != "block-udp" {
		t.Errorf("drops %+v", got.Drops)
	}
}

// TestDropped: what was sent and did not arrive carries nothing.
func TestDropped(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(small)
	alice, bob := s.Socket(evidence.UDP, "alice", 4000), s.Socket(evidence.UDP, "bob", 5000)
	alice.Send(at(homeB, 5000), small)
	bob.Send(at(homeA, 4000), 50)
	alice.Send(at(homeB, 5000), 50)
	s.expect(path.Record{Path: path.Failed, Legs: []path.Leg{}}, "")
}

// TestUnansweredIsNoRelay: a connection that nobody answered is not held.
func TestUnansweredIsNoRelay(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	for _, host := range []string{"alice", "bob"} {
		s.Socket(evidence.TCP, host, 7005).Segment(at(sn2, 443), evidence.SYN, 1, 0)
	}
	s.relay("sn1", 7001, payload)
	s.expect(relayed(evidence.TCP, "sn1"), "")
}

// TestRelayKeepsIt: the payload reached a relay and went no further.
func TestRelayKeepsIt(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	a, _ := s.relay("sn1", 7001, 0)
	a.Send("alice", payload)
	s.expect(path.Record{Path: path.Failed, Relays: 1, Legs: []path.Leg{}}, "")
}

func TestInconclusive(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *scene)
		want string
	}{
		{"payload over two paths", func(s *scene) {
			s.relay("sn1", 7001, payload/2)
			s.relay("sn2", 7002, payload/2)
		}, "too much for a flow that does not carry"},
		{"direct and relayed", func(s *scene) {
			s.relay("sn1", 7001, payload)
			s.Connect("alice", 7002, at(homeB, 5000)).Send("alice", payload)
		}, "sn1 carried the payload beside the direct path"},
		{"direct and sent to a relay that keeps it", func(s *scene) {
			s.Connect("alice", 7001, at(sn1, 443)).Send("alice", payload)
			s.Connect("alice", 7002, at(homeB, 5000)).Send("alice", payload)
		}, "sn1 took 39 KiB of the payload from alice beside the direct path"},
		{"two flows between the same hosts", func(s *scene) {
			s.Connect("alice", 7002, at(homeB, 5000)).Send("alice", payload)
			s.Connect("alice", 7003, at(homeB, 5000)).Send("alice", payload)
		}, "over 2 flows at once"},
		{"a quarter beside the path", func(s *scene) {
			s.relay("sn1", 7001, payload)
			s.relay("sn2", 7002, payload/4)
		}, "10000 bytes went out of alice"},
		{"payload from nowhere", func(s *scene) {
			s.Connect("bob", 7001, at(sn1, 443)).Send("sn1", payload)
		}, "on no route from alice"},
		{"one way", func(s *scene) {
			s.exchange.BothWays = true
			s.relay("sn1", 7001, payload)
		}, "none came back"},
		{"another way back", func(s *scene) {
			s.exchange.BothWays = true
			s.relay("sn1", 7001, payload)
			a, b := s.relay("sn2", 7002, 0)
			b.Send("bob", payload)
			a.Send("sn2", payload)
		}, "came back over alice -> sn2 -> bob"},
		{"behaviour changes meanwhile", func(s *scene) {
			s.Connect("alice", 7002, at(homeB, 5000)).Send("alice", payload)
			change := evidencetest.NAT("home-b", apdf)
			change.Time = s.Now.Add(-evidencetest.Step)
			s.World.Behaviours = append(s.World.Behaviours, change)
		}, "home-b changed"},
		{"nothing traced", func(s *scene) { s.exchange.Payload = 0 }, "no payload"},
		{"no such host", func(s *scene) { s.exchange.Callee = "zoe" }, "zoe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, apdf, none)
			s.Connect("bob", 5000, at(sn1, 443)) // a binding for TCP
			s.begin(payload)
			c.do(s)
			s.expect(path.Record{}, c.want)
		})
	}
}

// TestSmallFlowsDoNotDisturb: what stays below a quarter is not the payload.
func TestSmallFlowsDoNotDisturb(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	s.relay("sn1", 7001, payload)
	s.relay("sn2", 7002, payload/4-1)
	want := relayed(evidence.TCP, "sn1")
	want.Relays = 2
	s.expect(want, "")
}

// TestDeterminism: the same folder gives the same finding.
func TestDeterminism(t *testing.T) {
	s := newScene(t, apdf, apdf).begin(payload)
	s.relay("sn2", 7002, payload)
	s.relay("sn1", 7001, payload)
	s.exchange.To = s.Now
	dir := s.Write()
	var first path.Finding
	for n := range 5 {
		ev, err := evidence.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := path.Find(ev, s.exchange)
		if n == 0 {
			first = got
		} else if diff := cmp.Diff(first, got); diff != "" {
			t.Fatalf("another finding (-first +now):\n%s", diff)
		}
	}
}
