package verdict_test

import (
	"net/netip"
	"strings"
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

const (
	payload = 40_000
	server  = "198.18.0.9"
	sn1     = "198.18.0.11"
	sn2     = "198.18.0.12"
	homeB   = "198.18.1.2"
)

func at(address string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port)
}

// scene is a search of alice, whose first datagram bob's box drops, and which
// then goes over sn1 with sn2 standing by.
func scene(t *testing.T) *evidencetest.Recording {
	r := evidencetest.New(t, evidence.World{
		Hosts: []evidence.Host{
			evidencetest.Host("alice", "10.0.1.2", "home-a", "client"), evidencetest.Host("bob", "10.0.2.2", "home-b", "client"),
			evidencetest.Host("sn1", sn1, "", "supernode"), evidencetest.Host("sn2", sn2, "", "supernode"),
			evidencetest.Host("login", server, "", "login"),
		},
		Boxes: []evidence.Box{
			evidencetest.Box("home-a", "", "198.18.1.1", "10.0.1.0/24"), evidencetest.Box("home-b", "", homeB, "10.0.2.0/24"),
		},
		Behaviours: []evidence.Change{
			evidencetest.NAT("home-a", evidence.AddressAndPortDependent), evidencetest.NAT("home-b", evidence.AddressAndPortDependent),
		},
	})
	old := r.Connect("alice", 7000, at(server, 443))
	old.Send("alice", 100)
	begin := r.Now
	r.Socket(evidence.UDP, "alice", 4000).Send(at(homeB, 5000), 50)
	for n, sn := range []string{sn1, sn2} {
		port := uint16(7001 + n)
		a, b := r.Connect("alice", port, at(sn, 443)), r.Connect("bob", port, at(sn, 443))
		if n == 0 {
			a.Send("alice", payload)
			b.Send("sn1", payload)
		}
	}
	r.Connect("alice", 7009, at(sn1, 80)).Close("alice")
	old.Send("alice", 100)
	r.Exchange(evidence.Exchange{
		ID: "1", Function: "search", Caller: "alice", Callee: "bob", Since: begin, From: begin, To: r.Now, Payload: payload,
	})
	return r
}

// check is the scene with what the node claims truly.
func check(t *testing.T, r *evidencetest.Recording) verdict.Check {
	t.Helper()
	ev := r.Read()
	c := verdict.Check{Evidence: ev, Exchange: ev.Exchanges[0]}
	c.Finding = path.Find(ev, c.Exchange)
	c.Expected = verdict.Expectation{Path: path.Relayed, Hops: new(1), Relays: new(2), Carrying: new(1), Transport: "tcp"}
	c.Claimed = &path.Record{
		Path: path.Relayed, Relays: 2, Carrying: 1, Hops: 1,
		Legs: []path.Leg{{From: "alice", To: "sn1", Transport: "tcp"}, {Transport: "tcp"}},
	}
	return c
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name            string
		change          func(c *verdict.Check)
		verdict, reason string
	}{
		{"as expected", func(*verdict.Check) {}, verdict.Pass, "relayed (1 hop, 2 relays, 1 carrying, alice -> sn1 over tcp"},
		{"no claim", func(c *verdict.Check) { c.Claimed = nil }, verdict.Pass, "relayed"},
		{"nothing expected", func(c *verdict.Check) { c.Expected = verdict.Expectation{} }, verdict.Pass, "relayed"},
		{"not offered", func(c *verdict.Check) { c.NotOffered, c.Evidence = true, nil }, verdict.NotOffered, "does not offer"},

		{"no evidence", func(c *verdict.Check) { c.Evidence = nil }, verdict.Inconclusive, "no evidence"},
		{"capture loss", func(c *verdict.Check) {
			c.Evidence.Losses.Taps = []evidence.TapLosses{{Name: "bob/eth0", Received: 9, Dropped: 1}}
		}, verdict.Inconclusive, "bob/eth0 lost 1 of 9"},
		{"inconclusive path", func(c *verdict.Check) { c.Finding.Inconclusive = "two ways" }, verdict.Inconclusive, "two ways"},
		{"unseen", func(c *verdict.Check) { c.Unseen = []string{"home-a failed its certificate"} }, verdict.Inconclusive, "certificate"},
		{"loss goes before a wrong path", func(c *verdict.Check) {
			c.Evidence.Losses.Bounded, c.Expected.Path = true, path.Direct
		}, verdict.Inconclusive, "bound"},

		{"any path", func(c *verdict.Check) { c.Expected = verdict.Expectation{Path: verdict.AnyPath} }, verdict.Pass, "relayed"},
		{"any path, but none got through", func(c *verdict.Check) {
			c.Expected, c.Finding.Record = verdict.Expectation{Path: verdict.AnyPath}, path.Record{Path: path.Failed}
		}, verdict.Fail, "expected any path"},
		{"another path", func(c *verdict.Check) { c.Expected = verdict.Expectation{Path: path.Punched} }, verdict.Fail,
			"expected punched, the wire shows relayed"},
		{"more hops", func(c *verdict.Check) { c.Expected.Hops = new(2) }, verdict.Fail, "expected relayed (2 hops"},
		{"more relays", func(c *verdict.Check) { c.Expected.Relays = new(4) }, verdict.Fail, "4 relays"},
		{"more carry", func(c *verdict.Check) { c.Expected.Carrying = new(2) }, verdict.Fail, "2 carrying"},
		{"another transport", func(c *verdict.Check) { c.Expected.Transport = "udp" }, verdict.Fail, "over udp"},

		{"lies about the path", func(c *verdict.Check) { c.Claimed = &path.Record{Path: path.Direct} }, verdict.Fail,
			"the node claims direct but the wire shows relayed"},
		{"lies about relays", func(c *verdict.Check) { c.Claimed.Relays = 3 }, verdict.Fail, "the node claims relayed"},
		{"lies about hops", func(c *verdict.Check) { c.Claimed.Hops = 2 }, verdict.Fail, "the node claims relayed"},
		{"lies about carrying", func(c *verdict.Check) { c.Claimed.Carrying = 2 }, verdict.Fail, "the node claims relayed"},
		{"lies about transport", func(c *verdict.Check) { c.Claimed.Legs[0].Transport = "udp" }, verdict.Fail, "claims a leg alice -> sn1 over udp"},
		{"lies about the relay", func(c *verdict.Check) { c.Claimed.Legs[0].To = "sn2" }, verdict.Fail, "claims a leg alice -> sn2"},

		{"error in spite of success", func(c *verdict.Check) { c.NodeError = "timeout" }, verdict.Fail, "reports an error (timeout)"},
		{"failed as expected", func(c *verdict.Check) {
			c.Finding.Record, c.Expected, c.Claimed = path.Record{Path: path.Failed}, verdict.Expectation{Path: path.Failed}, nil
			c.NodeError = "nobody answered"
		}, verdict.Pass, "failed"},
		{"failed, and the claim knows it", func(c *verdict.Check) {
			c.Finding.Record, c.Expected = path.Record{Path: path.Failed, Relays: 1}, verdict.Expectation{Path: path.Failed}
			c.Claimed = &path.Record{Path: path.Failed}
		}, verdict.Pass, "failed"},
		{"failed, and claimed a success", func(c *verdict.Check) {
			c.Finding.Record, c.Expected = path.Record{Path: path.Failed}, verdict.Expectation{Path: path.Failed}
		}, verdict.Fail, "claims relayed"},
		{"failed, and reported a success", func(c *verdict.Check) {
			c.Finding.Record, c.Expected, c.Claimed = path.Record{Path: path.Failed}, verdict.Expectation{Path: path.Failed}, nil
		}, verdict.Fail, "reports success"},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := check(t, scene(t))
			c.change(&given)
			got, reason := verdict.Judge(given)
			if got != c.verdict || !strings.Contains(reason, c.reason) {
				t.Errorf("verdict %s: %s; want %s about %q", got, reason, c.verdict, c.reason)
			}
		})
	}
}

func count(t *testing.T, text string) verdict.Count {
	t.Helper()
	c, err := verdict.ParseCount(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFlowPatterns(t *testing.T) {
	n := func(text string) verdict.Count { return count(t, text) }
	type patterns []verdict.FlowPattern
	for _, c := range []struct {
		name     string
		patterns patterns
		ordered  bool
		reason   string // "" for a pass
	}{
		{"punch tried and dropped", patterns{{From: "alice", To: "bob", Transport: "udp", Port: 5000, Dropped: n("1"), Delivered: n("0")}}, false, ""},
		{"punch delivered", patterns{{From: "alice", To: "bob", Transport: "udp", Delivered: n(">=1")}}, false,
			"udp flows from alice to bob: expected delivered >=1, the wire shows 0"},
		{"by role", patterns{{From: "client", To: "supernode", Transport: "tcp", Flows: n("5"), Opened: n("5"), Left: n("4"), Peers: n("2")}}, false, ""},
		{"too many left", patterns{{From: "alice", To: "supernode", Left: n("1")}}, false, "expected left 1, the wire shows 2"},
		{"old connections do not count", patterns{{From: "alice", To: "login", Flows: n("0")}}, false, ""},
		{"at least one is the default", patterns{{From: "alice", To: "login"}}, false, "at least one"},
		{"another supernode", patterns{
			{From: "alice", To: "supernode", Port: 443, As: "held"},
			{From: "alice", To: "supernode", Port: 443, Except: "held", Flows: n("1")},
		}, false, ""},
		{"no third supernode", patterns{
			{From: "alice", To: "sn1", As: "held"},
			{From: "alice", To: "supernode", Except: "held", Flows: n(">1")},
		}, false, "except held: expected flows >1, the wire shows 1"},
		{"in order", patterns{{From: "alice", To: "bob"}, {From: "alice", To: "sn1"}, {From: "alice", To: "sn2"}}, true, ""},
		{"not in order", patterns{{From: "alice", To: "sn2"}, {From: "alice", To: "sn1"}}, true, "expected flows from alice to sn2 before flows from alice to sn1"},
		{"order not asked", patterns{{From: "alice", To: "sn2"}, {From: "alice", To: "sn1"}}, false, ""},
		{"anybody", patterns{{Transport: "udp", Flows: n("1")}}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := check(t, scene(t))
			given.Expected.Flows, given.Expected.Ordered = c.patterns, c.ordered
			if errs := given.Expected.Validate(); len(errs) > 0 {
				t.Errorf("not valid: %v", errs)
			}
			got, reason := verdict.Judge(given)
			switch {
			case c.reason == "" && got != verdict.Pass:
				t.Errorf("%s: %s", got, reason)
			case c.reason != "" && (got != verdict.Fail || !strings.Contains(reason, c.reason)):
				t.Errorf("%s: %s; want fail about %q", got, reason, c.reason)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	one := verdict.FlowPattern{}
	for _, c := range []struct {
		e    verdict.Expectation
		want string
	}{
		{verdict.Expectation{Path: "straight"}, "straight"},
		{verdict.Expectation{Hops: new(-1)}, "hops -1"},
		{verdict.Expectation{Transport: "sctp"}, "sctp"},
		{verdict.Expectation{Path: path.Failed, Relays: new(2)}, "nothing carries then"},
		{verdict.Expectation{Path: path.Failed, Transport: "udp"}, "nothing carries then"},
		{verdict.Expectation{Path: path.Direct, Hops: new(1)}, "hops: 1: no relay carries"},
		{verdict.Expectation{Path: path.Punched, Carrying: new(2)}, "carrying: 2: no relay carries"},
		{verdict.Expectation{Path: path.Relayed, Hops: new(0)}, "hops: 0: path: relayed has relays"},
		{verdict.Expectation{Ordered: true, Flows: []verdict.FlowPattern{one}}, "ordered"},
		{verdict.Expectation{Flows: []verdict.FlowPattern{one, {Except: "held"}}}, "entry 2: except \"held\""},
		{verdict.Expectation{Flows: []verdict.FlowPattern{{As: "x", Except: "x"}}}, "same name"},
		{verdict.Expectation{Flows: []verdict.FlowPattern{{Port: 70000}}}, "port 70000"},
		{verdict.Expectation{Flows: []verdict.FlowPattern{{Transport: "udp", Left: count(t, "1")}}}, "TCP"},
	} {
		if errs := c.e.Validate(); len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%+v: %v, want one error about %q", c.e, errs, c.want)
		}
	}
}
