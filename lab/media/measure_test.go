package media_test

import (
	"net/netip"
	"testing"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/media"
)

// interval is the load's, 70 packets a second.
const interval = time.Second / media.Rate

// call is a call of two open hosts over relays, as packets on the wire.
type call struct {
	*evidencetest.Recording
	ex    evidence.Exchange
	begin time.Time
}

func newCall(t *testing.T) *call {
	r := evidencetest.New(t, evidence.World{Hosts: []evidence.Host{
		evidencetest.Host("alice", "198.18.1.2", ""), evidencetest.Host("bob", "198.18.1.3", ""),
		evidencetest.Host("sn1", "198.18.0.11", "", "supernode"), evidencetest.Host("sn2", "198.18.0.12", "", "supernode"),
	}})
	c := &call{Recording: r, begin: r.Now}
	c.ex = evidence.Exchange{ID: "x/call/media", Caller: "alice", Callee: "bob", Since: r.Now, From: r.Now, BothWays: true}
	return c
}

func address(host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(map[string]string{
		"alice": "198.18.1.2", "bob": "198.18.1.3", "sn1": "198.18.0.11", "sn2": "198.18.0.12",
	}[host]), 5000)
}

// send sends one datagram of media each way over a relay, or straight where there
// is none. deaf drops it at the relay.
func (c *call) send(relay string, deaf bool) {
	for _, way := range [][2]string{{"alice", "bob"}, {"bob", "alice"}} {
		next := way[1]
		if relay != "" {
			next = relay
		}
		c.Socket(evidence.UDP, way[0], 5000).Send(address(next), media.PacketSize)
		if relay != "" && !deaf {
			c.Socket(evidence.UDP, relay, 5000).Send(address(way[1]), media.PacketSize)
		}
	}
}

// last has the load go over a relay for a while.
func (c *call) last(d time.Duration, relay string, deaf bool) {
	for range int(d * media.Rate / time.Second) {
		next := c.Now.Add(interval)
		c.send(relay, deaf)
		c.Now = next
	}
}

func (c *call) measure(t *testing.T) *media.Measure {
	t.Helper()
	c.ex.To = c.Now
	m := media.Of(c.Read(), c.ex)
	if m == nil {
		t.Fatal("nothing was measured")
	}
	return m
}

// The 2004 load over a direct path: its size, its rate, nothing lost, no silence
// longer than the interval.
func TestLoad(t *testing.T) {
	c := newCall(t)
	c.last(4*time.Second, "", false)
	m := c.measure(t)
	if m.Size != 67 || m.First != "" || m.ToCallee.Sent != 280 || m.ToCallee.Lost() != 0 || m.ToCaller.Lost() != 0 {
		t.Errorf("%+v", m)
	}
	if r := m.ToCaller; r.Rate < 69.9 || r.Rate > 70.1 || r.Least < 69.4 || r.Least > 70.1 {
		t.Errorf("%v packets a second, %v in one half; want 70", r.Rate, r.Least)
	}
	if m.Gap < interval.Seconds() || m.Gap > 2*interval.Seconds() {
		t.Errorf("gap of %v s", m.Gap)
	}
}

// Silence suppressed shows as a rate below in that half.
func TestSilenceSuppressed(t *testing.T) {
	c := newCall(t)
	c.last(2*time.Second, "", false)
	c.last(time.Second, "", false)
	c.Now = c.Now.Add(time.Second)
	m := c.measure(t)
	if m.ToCallee.Rate > 53 || m.ToCallee.Least > 36 || m.ToCallee.Gap < 0.99 || m.ToCallee.Pause < 0.99 {
		t.Errorf("%+v", m.ToCallee)
	}
}

// A relay dies, is talked to for 400 ms in vain, and media goes on over the next:
// the gap is as long, what was sent meanwhile is lost, and media has settled when
// the last packet left for the dead one.
func TestRelayDies(t *testing.T) {
	c := newCall(t)
	c.last(time.Second, "sn1", false)
	died := c.Now
	c.last(400*time.Millisecond, "sn1", true)
	moved := c.Now
	c.last(2*time.Second, "sn2", false)
	c.ex.From = died
	c.ex.Events = []evidence.Event{{Action: "kill", Target: "sn1", Began: died, Done: died}}
	m := c.measure(t)
	if m.First != "sn1" || m.Size != 67 {
		t.Errorf("%+v", m)
	}
	if m.Gap < 0.4 || m.Gap > 0.43 {
		t.Errorf("gap of %v s, want 0.4 and one interval", m.Gap)
	}
	if p := m.ToCallee.Pause; p > 0.03 {
		t.Errorf("the caller paused for %v s", p)
	}
	if lost := m.ToCallee.Lost(); lost != 28 || m.ToCaller.Lost() != lost {
		t.Errorf("%d packets lost, want 28", lost)
	}
	settled := media.Settled(c.Read(), c.ex)
	if settled.Before(moved.Add(-2*interval)) || settled.After(moved) {
		t.Errorf("settled %v after the death, moved %v after it", settled.Sub(died), moved.Sub(died))
	}
}

// Where media never comes again the gap lasts until the end.
func TestNothingMore(t *testing.T) {
	c := newCall(t)
	c.last(time.Second, "sn1", false)
	died := c.Now
	c.last(2*time.Second, "sn1", true)
	c.ex.From = died
	c.ex.Events = []evidence.Event{{Action: "stall", Target: "sn1", Began: died, Done: died}}
	if m := c.measure(t); m.Gap < 2 || m.Gap > 2.03 {
		t.Errorf("gap of %v s, want 2 and one interval", m.Gap)
	}
}

// Over TCP each packet has its length before it, several may share a segment, and
// TLS beside it is no media.
func TestLoadOverTCP(t *testing.T) {
	c := newCall(t)
	signalling := c.Connect("alice", 4000, address("sn1"))
	first, second := c.Connect("alice", 4001, address("sn1")), c.Connect("bob", 4001, address("sn1"))
	first.Send("alice", 16) // a token
	second.Send("bob", 16)
	c.ex.From = c.Now
	for n := range 70 {
		next := c.Now.Add(2 * interval)
		for _, way := range []struct {
			by   string
			over *evidencetest.Conn
		}{{"alice", first}, {"sn1", second}, {"bob", second}, {"sn1", first}} {
			if n%5 == 0 { // both in one segment
				way.over.Send(way.by, 138)
				continue
			}
			way.over.Send(way.by, 69)
			way.over.Send(way.by, 69)
		}
		if n%10 == 0 {
			signalling.Send("alice", 120)
		}
		c.Now = next
	}
	m := c.measure(t)
	if m.Size != 69 || m.First != "sn1" || m.ToCallee.Sent != 140 || m.ToCallee.Received != 140 || m.ToCaller.Received != 140 {
		t.Errorf("%+v", m)
	}
}

// Nothing is measured where nothing came.
func TestNothing(t *testing.T) {
	c := newCall(t)
	c.Socket(evidence.UDP, "alice", 5000).Send(address("sn1"), 67)
	c.ex.To = c.Now
	if m := media.Of(c.Read(), c.ex); m != nil {
		t.Errorf("%+v", m)
	}
}

func TestIsLoad(t *testing.T) {
	for _, c := range []struct {
		transport string
		bytes     int
		want      bool
	}{
		{evidence.UDP, 67, true}, {evidence.UDP, 134, false}, {evidence.UDP, 0, false}, {evidence.UDP, 69, false},
		{evidence.TCP, 69, true}, {evidence.TCP, 138, true}, {evidence.TCP, 67, false}, {evidence.TCP, 0, false},
	} {
		if got := media.IsLoad(evidence.Packet{Transport: c.transport, Payload: c.bytes}); got != c.want {
			t.Errorf("%d bytes over %s: %v", c.bytes, c.transport, got)
		}
	}
}

// standby has the ends send on a relay over TCP as they do whether media goes or
// not, three times a second, for a while.
func (c *call) standby(d time.Duration, relay map[string]*evidencetest.Conn, meanwhile func()) {
	const rate = 3
	for range int(d * rate / time.Second) {
		next := c.Now.Add(time.Second / rate)
		for _, end := range []string{"alice", "bob"} {
			relay[end].Send(end, 19)
		}
		for c.Now.Add(interval).Before(next) {
			then := c.Now.Add(interval)
			meanwhile()
			c.Now = then
		}
		c.Now = next
	}
}

// An end that has no path goes on with its standby messages: it doesn't pause. One
// that says nothing on any flow does, for as long as it would have said something.
func TestPause(t *testing.T) {
	for _, test := range []struct {
		name     string
		says     bool
		from, to float64 // seconds of the pause
	}{{"no path", true, 0, 0.02}, {"no processor", false, 0.63, 0.69}} {
		t.Run(test.name, func(t *testing.T) {
			c := newCall(t)
			held := map[string]*evidencetest.Conn{}
			for _, end := range []string{"alice", "bob"} {
				held[end] = c.Connect(end, 4001, address("sn2"))
			}
			c.standby(2*time.Second, held, func() { c.send("sn1", false) })
			died := c.Now
			if test.says {
				c.standby(time.Second, held, func() {})
			} else {
				c.Now = c.Now.Add(time.Second)
			}
			c.standby(2*time.Second, held, func() { c.send("sn2", false) })
			c.ex.From = died
			c.ex.Events = []evidence.Event{{Action: "kill", Target: "sn1", Began: died, Done: died}}
			for n, d := range []media.Direction{c.measure(t).ToCallee, c.measure(t).ToCaller} {
				if d.Gap < 1 || d.Pause < test.from || d.Pause > test.to {
					t.Errorf("direction %d: gap of %v s, pause of %v s; want %v to %v", n, d.Gap, d.Pause, test.from, test.to)
				}
			}
		})
	}
}
