package evidence_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// homes is two homes on the internet and a server:
//
//	alice 10.0.1.2 - home-a 198.18.1.1 - internet - home-b 198.18.1.2 - bob 10.0.2.2
//	                                   - server 198.18.0.9
func homes(t testing.TB, a, b evidence.Filtering) *evidencetest.Recording {
	return evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "10.0.1.2", "home-a"),
			evidencetest.Host("bob", "10.0.2.2", "home-b"),
			evidencetest.Host("carol", "10.0.2.3", "home-b"),
			evidencetest.Host("server", "198.18.0.9", ""),
		},
		Boxes: []evidence.Box{
			evidencetest.Box("home-a", "", "198.18.1.1", "10.0.1.0/24"),
			evidencetest.Box("home-b", "", "198.18.1.2", "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{evidencetest.NAT("home-a", a), evidencetest.NAT("home-b", b)},
	})
}

func one(t *testing.T, flows []*evidence.Flow) *evidence.Flow {
	t.Helper()
	if len(flows) != 1 {
		t.Fatalf("%d flows, not one: %v", len(flows), flows)
	}
	return flows[0]
}

// TestPunchedFlow joins both ends' packets to one flow, the first of which is
// dropped at the other home.
func TestPunchedFlow(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.AddressAndPortDependent)
	alice, bob := r.Socket(evidence.UDP, "alice", 4000), r.Socket(evidence.UDP, "bob", 5000)
	if host, _ := alice.Send(at("198.18.1.2:5000"), 30); host != "" {
		t.Fatalf("the model let the first datagram through to %q", host)
	}
	bob.Send(at("198.18.1.1:4000"), 40)
	alice.Send(at("198.18.1.2:5000"), 50)
	f := one(t, r.Read().All())
	if f.A != (evidence.Endpoint{Host: "alice", Local: at("10.0.1.2:4000"), Seen: at("198.18.1.1:4000")}) ||
		f.B != (evidence.Endpoint{Host: "bob", Local: at("10.0.2.2:5000"), Seen: at("198.18.1.2:5000")}) {
		t.Errorf("ends %v and %v", f.A, f.B)
	}
	if f.Forward.Sent != 80 || f.Forward.Received != 50 || f.Backward.Sent != 40 || f.Backward.Received != 40 {
		t.Errorf("traffic %+v and %+v", f.Forward, f.Backward)
	}
	if len(f.Drops) != 1 || f.Drops[0].Router != "home-b" || f.Drops[0].From != "alice" || f.Drops[0].Rule != "unsolicited" {
		t.Errorf("drops %+v", f.Drops)
	}
	if !f.First.Equal(evidencetest.Start) || !slices.Equal(f.Toward, []string{"bob"}) {
		t.Errorf("first %v, toward %v", f.First, f.Toward)
	}
	in, out, ok := f.Crossed("home-b")
	if !ok || !out.Before(in) {
		t.Errorf("crossed home-b out %v, in %v, seen %v", out, in, ok)
	}
}

// TestSymmetricFlow: every destination has a mapping of its own, and a flow is
// joined through it.
func TestSymmetricFlow(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.EndpointIndependent)
	r.Symmetric["home-a"] = true
	alice, bob := r.Socket(evidence.UDP, "alice", 4000), r.Socket(evidence.UDP, "bob", 5000)
	alice.Send(at("198.18.0.9:3478"), 10) // takes the first port
	bob.Send(at("198.18.0.9:3478"), 10)   // gives bob a binding
	alice.Send(at("198.18.1.2:5000"), 700)
	ev := r.Read()
	flows := slices.DeleteFunc(ev.All(), func(f *evidence.Flow) bool { return !f.Between("alice", "bob") })
	f := one(t, flows)
	if f.A.Local != at("10.0.1.2:4000") || f.A.Seen != at("198.18.1.1:20001") || f.OutOf("alice").Received != 700 {
		t.Errorf("%v carried %+v", f, f.Forward)
	}
}

// TestInboundOriginal: the same flow is joined where the table's original
// direction is the one inward.
func TestInboundOriginal(t *testing.T) {
	r := homes(t, evidence.EndpointIndependent, evidence.EndpointIndependent)
	alice := r.Socket(evidence.UDP, "alice", 4000)
	alice.Send(at("198.18.0.9:3478"), 10)
	server := r.Socket(evidence.UDP, "server", 9999)
	if host, _ := server.Send(at("198.18.1.1:4000"), 100); host != "alice" {
		t.Fatalf("the model sent the datagram to %q", host)
	}
	flows := slices.DeleteFunc(r.Read().All(), func(f *evidence.Flow) bool { return f.A.Local.Port() != 9999 })
	f := one(t, flows)
	if f.A.Host != "server" || f.B.Local != at("10.0.1.2:4000") || f.Forward.Received != 100 {
		t.Errorf("%v carried %+v", f, f.Forward)
	}
}

// TestDoubleNAT joins through two boxes on one side, and does not leave the
// outer one where both ends stand behind it.
func TestDoubleNAT(t *testing.T) {
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "10.0.1.2", "home-a"), evidencetest.Host("bob", "10.0.2.2", "home-b"),
			evidencetest.Host("server", "198.18.0.9", ""),
		},
		Boxes: []evidence.Box{
			evidencetest.Box("isp", "", "198.18.1.1", "10.0.9.0/24"),
			evidencetest.Box("home-a", "isp", "10.0.9.2", "10.0.1.0/24"),
			evidencetest.Box("home-b", "isp", "10.0.9.3", "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{
			evidencetest.NAT("isp", evidence.AddressAndPortDependent),
			evidencetest.NAT("home-a", evidence.AddressAndPortDependent),
			evidencetest.NAT("home-b", evidence.AddressAndPortDependent),
		},
	})
	r.Symmetric["isp"] = true
	c := r.Connect("alice", 4000, at("198.18.0.9:443"))
	c.Send("alice", 5000)
	alice, bob := r.Socket(evidence.UDP, "alice", 4001), r.Socket(evidence.UDP, "bob", 5001)
	alice.Send(at("10.0.9.3:5001"), 11)
	bob.Send(at("10.0.9.2:4001"), 22)
	flows := r.Read().All()
	if len(flows) != 2 {
		t.Fatalf("%d flows: %v", len(flows), flows)
	}
	f, inside := flows[0], flows[1]
	if !f.Between("alice", "server") || f.A.Seen != at("198.18.1.1:20000") || f.Forward.Received != 5000 || f.Opened.IsZero() {
		t.Errorf("%v carried %+v, opened %v", f, f.Forward, f.Opened)
	}
	if !inside.Between("alice", "bob") || inside.A.Seen != at("10.0.9.2:4001") || inside.Backward.Received != 22 || len(inside.Drops) != 1 {
		t.Errorf("%v carried %+v and %+v, drops %v", inside, inside.Forward, inside.Backward, inside.Drops)
	}
	if _, _, ok := inside.Crossed("isp"); ok {
		t.Errorf("%v is said to cross isp", inside)
	}
}

// estate is two homes behind one provider's NAT, which hairpins, and a host that
// is behind that NAT alone. In the first, beside alice, is anna, 10.0.1.3:
//
//	alice 10.0.1.2 - home-a 10.0.9.2 ┐
//	bob   10.0.2.2 - home-b 10.0.9.3 ┼ isp 198.18.1.1 - server 198.18.0.9
//	              carol     10.0.9.4 ┘
func estate(t testing.TB) *evidencetest.Recording {
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "10.0.1.2", "home-a"), evidencetest.Host("bob", "10.0.2.2", "home-b"),
			evidencetest.Host("anna", "10.0.1.3", "home-a"), evidencetest.Host("carol", "10.0.9.4", "isp"), evidencetest.Host("server", "198.18.0.9", ""),
		},
		Boxes: []evidence.Box{
			evidencetest.Box("isp", "", "198.18.1.1", "10.0.9.0/24"),
			evidencetest.Box("home-a", "isp", "10.0.9.2", "10.0.1.0/24"),
			evidencetest.Box("home-b", "isp", "10.0.9.3", "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{
			evidencetest.NAT("isp", evidence.EndpointIndependent),
			evidencetest.NAT("home-a", evidence.AddressAndPortDependent),
			evidencetest.NAT("home-b", evidence.AddressAndPortDependent),
		},
	})
	r.Hairpin["isp"] = true
	return r
}

// TestHairpin joins a flow that turns around in the box in front of both ends,
// which translates both: whichever of them made the box's entry.
func TestHairpin(t *testing.T) {
	for _, symmetric := range []bool{false, true} {
		r := estate(t)
		r.Symmetric["isp"] = symmetric
		server := at("198.18.0.9:3478")
		alice, bob := r.Socket(evidence.UDP, "alice", 4000), r.Socket(evidence.UDP, "bob", 5000)
		_, a := alice.Send(server, 11)
		_, b := bob.Send(server, 22)
		if host, _ := alice.Send(b, 33); host != "" {
			t.Fatalf("home-b let in what nobody asked for, to %q", host)
		}
		if symmetric { // it took another port for that
			a = netip.AddrPortFrom(a.Addr(), b.Port()+1)
		}
		if host, from := bob.Send(a, 44); host != "alice" || from != b {
			t.Fatalf("the model sent the datagram to %q, from %v", host, from)
		}
		alice.Send(b, 55)
		flows := r.Read().All()
		if len(flows) != 3 {
			t.Fatalf("%d flows, not two to the server and one between: %v", len(flows), flows)
		}
		f := flows[2]
		if f.A != (evidence.Endpoint{Host: "alice", Local: alice.Local, Seen: a}) ||
			f.B != (evidence.Endpoint{Host: "bob", Local: bob.Local, Seen: b}) {
			t.Errorf("ends %v and %v, the box gave %v and %v", f.A, f.B, a, b)
		}
		if f.Forward.Sent != 88 || f.Forward.Received != 55 || f.Backward.Received != 44 || f.Stuck != "" {
			t.Errorf("%v carried %+v and %+v", f, f.Forward, f.Backward)
		}
		if len(f.Drops) != 1 || f.Drops[0].Router != "home-b" || f.Drops[0].From != "alice" {
			t.Errorf("drops %+v", f.Drops)
		}
		for _, box := range []string{"home-a", "isp", "home-b"} {
			if in, out, ok := f.Crossed(box); !ok || in.IsZero() || out.IsZero() {
				t.Errorf("crossed %s in %v, out %v, seen %v", box, in, out, ok)
			}
		}
	}
}

// TestHairpinBeside: what two hosts send each other by hairpin is another flow
// than what they send each other straight over the LAN, from the same ports.
func TestHairpinBeside(t *testing.T) {
	r := estate(t)
	alice, carol := r.Socket(evidence.UDP, "alice", 4000), r.Socket(evidence.UDP, "carol", 5000)
	_, seen := carol.Send(at("198.18.0.9:3478"), 11)
	alice.Send(at("198.18.0.9:3478"), 22)
	alice.Send(seen, 333)         // to carol's external address
	alice.Send(carol.Local, 4444) // to her own
	flows := slices.DeleteFunc(r.Read().All(), func(f *evidence.Flow) bool { return !f.Between("alice", "carol") })
	if len(flows) != 2 {
		t.Fatalf("%d flows: %v", len(flows), flows)
	}
	for n, want := range []struct {
		from, to string
		bytes    int64
	}{{"198.18.1.1:4000", seen.String(), 333}, {"10.0.9.2:4000", "10.0.9.4:5000", 4444}} {
		f := flows[n]
		if f.A.Seen != at(want.from) || f.B.Seen != at(want.to) || f.Forward.Received != want.bytes {
			t.Errorf("%v carried %+v, want %v", f, f.Forward, want)
		}
	}
}

// TestHairpinAround: two hosts of one home that turn around in the provider's NAT
// go out of both and in again, so that they are on each one's side; what they send
// each other straight passes nothing.
func TestHairpinAround(t *testing.T) {
	r := estate(t)
	alice, anna := r.Socket(evidence.UDP, "alice", 4000), r.Socket(evidence.UDP, "anna", 5000)
	_, seen := anna.Send(at("198.18.0.9:3478"), 11)
	_, own := alice.Send(at("198.18.0.9:3478"), 22)
	anna.Send(own, 33) // stopped, and opens her side
	if host, _ := alice.Send(seen, 333); host != "anna" {
		t.Fatalf("alice's datagram around came to %q", host)
	}
	alice.Send(anna.Local, 4444)
	ev := r.Read()
	flows := slices.DeleteFunc(ev.All(), func(f *evidence.Flow) bool { return !f.Between("alice", "anna") })
	if len(flows) != 2 {
		t.Fatalf("%d flows: %v", len(flows), flows)
	}
	for n, want := range [][]string{{"home-a", "isp"}, nil} {
		for _, ends := range [][2]string{{"alice", "anna"}, {"anna", "alice"}} {
			if got := ev.World.SideOf(flows[n], ends[0], ends[1]); !slices.Equal(got, want) {
				t.Errorf("%v: on %s's side are %v, want %v", flows[n], ends[0], got, want)
			}
		}
	}
}

// TestHairpinRefused: a box that doesn't hairpin makes no entry, and the flow
// ends there.
func TestHairpinRefused(t *testing.T) {
	r := estate(t)
	r.Hairpin["isp"] = false
	bob := r.Socket(evidence.UDP, "bob", 5000)
	_, seen := bob.Send(at("198.18.0.9:3478"), 11)
	r.Socket(evidence.UDP, "alice", 4000).Send(seen, 33)
	flows := slices.DeleteFunc(r.Read().All(), func(f *evidence.Flow) bool { return f.A.Host != "alice" })
	f := one(t, flows)
	if f.Stuck != "isp" || f.B.Host != "" || f.Forward.Received != 0 || len(f.Drops) != 1 || f.Drops[0].Rule != "hairpin" {
		t.Errorf("%v: %+v", f, f)
	}
}

// TestMappingChanges gives one inner tuple two mappings, one after the other.
func TestMappingChanges(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.NoFiltering)
	r.Symmetric["home-a"] = true
	alice := r.Socket(evidence.UDP, "alice", 4000)
	alice.Send(at("198.18.0.9:3478"), 100)
	r.Forget("home-a")
	r.Now = r.Now.Add(time.Minute)
	alice.Send(at("198.18.0.9:3478"), 200)
	flows := r.Read().All()
	if len(flows) != 2 {
		t.Fatalf("%d flows: %v", len(flows), flows)
	}
	for n, want := range []struct {
		seen  string
		bytes int64
	}{{"198.18.1.1:20000", 100}, {"198.18.1.1:20001", 200}} {
		f := flows[n]
		if f.A.Seen != at(want.seen) || f.Forward.Sent != want.bytes || f.Forward.Received != want.bytes {
			t.Errorf("%v carried %+v, want %v", f, f.Forward, want)
		}
	}
}

// TestStuck: without an entry the flow ends at the box, and nobody guesses.
func TestStuck(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.NoFiltering)
	r.Block["home-a"] = evidence.UDP
	r.Socket(evidence.UDP, "alice", 4000).Send(at("198.18.1.2:5000"), 100)
	f := one(t, r.Read().All())
	if f.Stuck != "home-a" || f.A.Seen.IsValid() || f.B.Host != "" || f.Forward.Sent != 100 || f.Forward.Received != 0 {
		t.Errorf("%v: %+v", f, f)
	}
	if len(f.Drops) != 1 || f.Drops[0].From != "alice" || f.Drops[0].Rule != "block-udp" {
		t.Errorf("drops %+v", f.Drops)
	}
	if !slices.Equal(f.Toward, []string{"bob", "carol"}) {
		t.Errorf("toward %v, want both hosts behind home-b", f.Toward)
	}
}

// TestRetransmission counts bytes of TCP once, in the window in which they
// first came.
func TestRetransmission(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.NoFiltering)
	c := r.Connect("alice", 4000, at("198.18.0.9:443"))
	c.Send("alice", 3000)
	middle := r.Now
	c.Again("alice", 1400)
	c.Send("alice", 500)
	c.Send("server", 70)
	end := r.Now.Add(-time.Nanosecond)
	c.Close("server")
	c = r.Connect("alice", 4000, at("198.18.0.9:443")) // the same ports again
	c.Send("alice", 10)
	ev := r.Read()
	flows := ev.All()
	if len(flows) != 2 {
		t.Fatalf("%d connections: %v", len(flows), flows)
	}
	if f := flows[0]; f.Forward.Sent != 3500 || f.Forward.Received != 3500 || f.Backward.Received != 70 || f.Closed.IsZero() {
		t.Errorf("first connection: %+v, %+v, closed %v", f.Forward, f.Backward, f.Closed)
	}
	if in, out, ok := flows[1].Crossed("home-a"); !ok || out.Before(flows[1].First) || in.Before(out) {
		t.Errorf("the second connection crossed home-a out %v, in %v, seen %v; it began %v", out, in, ok, flows[1].First)
	}
	if f := flows[1]; f.Forward.Received != 10 || f.Opened.IsZero() || !f.Closed.IsZero() {
		t.Errorf("second connection: %+v, opened %v, closed %v", f.Forward, f.Opened, f.Closed)
	}
	if f := one(t, ev.Flows(middle, end)); f.Forward.Sent != 500 || f.Forward.SentPackets != 2 || !f.Closed.IsZero() || f.Opened.IsZero() {
		t.Errorf("in the window: %+v, closed %v", f.Forward, f.Closed)
	}
	if got := ev.Flows(r.Now.Add(time.Second), r.Now.Add(time.Minute)); len(got) != 0 {
		t.Errorf("flows after the end: %v", got)
	}
}

// TestRefused: a connection that is answered by nothing, or by RST, is not open.
func TestRefused(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.AddressAndPortDependent)
	if c := r.Connect("alice", 4000, at("198.18.1.2:443")); c.Open {
		t.Fatal("the model let a SYN in")
	}
	f := one(t, r.Read().All())
	if !f.Opened.IsZero() || len(f.Drops) != 1 || f.Drops[0].From != "alice" || f.Forward.SentPackets != 1 {
		t.Errorf("%v opened %v, drops %v", f, f.Opened, f.Drops)
	}
}

// TestAnswerLost: a connection whose SYN was answered is open only when the
// answer arrives, and closed by a RST.
func TestAnswerLost(t *testing.T) {
	r := homes(t, evidence.AddressAndPortDependent, evidence.AddressAndPortDependent)
	alice, server := r.Socket(evidence.TCP, "alice", 4000), r.Socket(evidence.TCP, "server", 443)
	_, seen := alice.Segment(server.Local, evidence.SYN, 100, 0)
	r.Block["home-a"] = evidence.TCP
	server.Segment(seen, evidence.SYN|evidence.ACK, 900, 0)
	r.Block["home-a"] = ""
	lost := r.Now
	server.Segment(seen, evidence.SYN|evidence.ACK, 900, 0)
	answered := r.Now
	alice.Segment(server.Local, evidence.RST, 101, 30)
	f := one(t, r.Read().All())
	if f.Opened.Before(lost) || f.Opened.After(answered) {
		t.Errorf("opened %v, and the answer arrived after %v", f.Opened, lost)
	}
	if f.Closed.Before(answered) || f.Forward.Sent != 0 || len(f.Drops) != 1 || f.Drops[0].From != "server" {
		t.Errorf("closed %v, sent %d, drops %+v", f.Closed, f.Forward.Sent, f.Drops)
	}
}

// TestWindow: both ends of a window belong to it.
func TestWindow(t *testing.T) {
	r := homes(t, evidence.NoFiltering, evidence.NoFiltering)
	alice := r.Socket(evidence.UDP, "alice", 4000)
	for range 3 {
		alice.Send(at("198.18.0.9:53"), 10)
	}
	ev := r.Read()
	second := evidencetest.Start.Add(evidencetest.Step)
	if f := one(t, ev.Flows(second, second)); f.Forward.Sent != 10 || f.Forward.Received != 0 {
		t.Errorf("in one moment: %+v", f.Forward)
	}
	third := second.Add(evidencetest.Step)
	if f := one(t, ev.Flows(evidencetest.Start, third)); f.Forward.Sent != 30 || f.Forward.Received != 20 {
		t.Errorf("up to the third: %+v", f.Forward)
	}
}

// TestFirewall joins through a box that filters without translating.
func TestFirewall(t *testing.T) {
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "198.19.1.2", "wall"), evidencetest.Host("server", "198.18.0.9", ""),
		},
		Boxes:      []evidence.Box{evidencetest.Box("wall", "", "198.18.1.1", "198.19.1.0/24")},
		Behaviours: []evidence.Change{evidencetest.Firewall("wall", evidence.AddressAndPortDependent)},
	})
	r.Socket(evidence.UDP, "server", 7).Send(at("198.19.1.2:9"), 10)
	r.Socket(evidence.UDP, "alice", 9).Send(at("198.18.0.9:7"), 20)
	f := one(t, r.Read().All())
	if f.A.Host != "server" || f.B.Seen != at("198.19.1.2:9") || f.Backward.Received != 20 || len(f.Drops) != 1 || f.Drops[0].From != "server" {
		t.Errorf("%v: %+v, drops %+v", f, f.Backward, f.Drops)
	}
}
