package middlebox

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mapped counts the mappings that a box has.
func (l *lab) mapped(box string, p Protocol) int {
	l.Helper()
	loader, err := NewLoader(l.space(box))
	if err != nil {
		l.Fatal(err)
	}
	defer loader.Close()
	set, err := loader.conn.GetSetByName(table(), externalMap(p))
	if err != nil {
		l.Fatal(err)
	}
	elements, err := loader.conn.GetSetElements(set)
	if err != nil {
		l.Fatal(err)
	}
	return len(elements)
}

// pace is how often a test looks, or sends to keep something alive.
const pace = 50 * time.Millisecond

// during calls f at that pace for so long, and returns when the last call began.
func during(d time.Duration, f func()) (last time.Time) {
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-ticks.C {
		last = time.Now()
		f()
	}
	return last
}

// untilUnmapped waits until a box has no mapping, and fails unless that takes
// as long as the timer since the last packet, which was sent after since. All
// other timers are far longer than the patience.
func (l *lab) untilUnmapped(box string, p Protocol, since time.Time, timer time.Duration) {
	l.Helper()
	for l.mapped(box, p) > 0 {
		if time.Since(since) > timer+patience {
			l.Fatalf("the %s mapping still lives after %v, with a timer of %v", p, time.Since(since), timer)
		}
	}
	if lived := time.Since(since); lived < timer*9/10 {
		l.Errorf("the %s mapping lived %v, want %v", p, lived, timer)
	}
}

// each runs a test for mappings that are kept in different ways.
func each(t *testing.T, test func(t *testing.T, b Behaviour)) {
	for _, b := range []Behaviour{
		{Mapping: MapEndpointIndependent, Filtering: FilterEndpointIndependent},
		{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent},
		{Mapping: MapAddressDependent, Filtering: FilterAddressAndPortDependent},
		{Mapping: MapAddressAndPortDependent, Filtering: FilterAddressDependent},
	} {
		t.Run(string(b.Mapping+" "+Mapping(b.Filtering)), func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// RFC 4787, REQ-6: packets that go out keep a mapping, and so do those that come
// in, unless the box has refresh: outbound.
func TestUDPRefresh(t *testing.T) {
	t.Parallel()
	const timer = time.Second
	for _, refresh := range []Refresh{RefreshBoth, RefreshOutbound} {
		t.Run(string(refresh), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, b Behaviour) {
				b.UDPTimeout, b.Refresh = timer, refresh
				l := newLab(t, b, b)
				alice, server := l.udp("alice"), l.udp("s1")
				outside := l.observe(alice, server)
				l.send(server, outside, "hello")
				l.receive(alice)
				last := during(timer*3/2, func() {
					if seen := l.observe(alice, server); seen != outside {
						t.Fatalf("the endpoint became %v from %v while it was in use", seen, outside)
					}
					if n := l.mapped("a", UDP); n != 1 {
						t.Fatalf("%d mappings while one is in use", n)
					}
				})
				if refresh == RefreshBoth {
					last = during(timer*3/2, func() {
						l.send(server, outside, "in")
						l.receive(alice)
					})
					if n := l.mapped("a", UDP); n != 1 {
						t.Errorf("%d mappings while packets come in, want 1", n)
					}
				} else {
					var heard time.Duration
					var sent []time.Time // each before its packet, which says its place
					for since := last; time.Since(last) < 2*timer; since = time.Now() {
						l.send(server, outside, strconv.Itoa(len(sent)))
						sent = append(sent, since)
						if text, ok := l.hear(alice, pace); ok {
							n, err := strconv.Atoi(text)
							if err != nil {
								t.Fatal(err)
							}
							heard = sent[n].Sub(last)
						}
					}
					if heard < timer/2 || heard > timer*3/2 { // on a busy machine the packets come far apart
						t.Errorf("the last packet came in after %v, with a timer of %v that only packets outward refresh", heard, timer)
					}
					last = last.Add(heard) // the port is kept for the flow, which that packet prolonged
				}
				l.untilUnmapped("a", UDP, last, timer)
			})
		})
	}
}

// hears says whether a datagram comes within a time.
func (l *lab) hears(c *net.UDPConn, within time.Duration) bool {
	l.Helper()
	_, ok := l.hear(c, within)
	return ok
}

// hear returns the text of the datagram that comes within a time, if one does.
func (l *lab) hear(c *net.UDPConn, within time.Duration) (string, bool) {
	l.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		l.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil && !silence(err) {
		l.Fatal(err)
	}
	return string(buf[:n]), err == nil
}

// A UDP flow has one timer, and once it is a stream another; the box keeps the
// endpoint for as long as that.
func TestUDPUnreplied(t *testing.T) {
	t.Parallel()
	const unreplied, timer = time.Second, 3 * time.Second
	nat := Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent}
	for name, b := range map[string]Behaviour{
		"endpoint-independent": nat,
		"symmetric":            with(nat, func(b *Behaviour) { b.Mapping = MapAddressAndPortDependent }),
		"confirm":              with(nat, func(b *Behaviour) { b.Unsolicited = ConfirmUnsolicited }),
		"firewall":             statefulFirewall,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b.UDPTimeout, b.UDPUnreplied = timer, unreplied
			l := newLab(t, b, b)
			alice, server := l.udp("alice"), l.udp("s1")
			last := time.Now()
			outside := l.observe(alice, server)
			l.untilFlowEnds("a", unreplied, last)
			l.send(server, outside, "too late")
			if l.hears(alice, pace) {
				t.Error("an answer came in after the flow had ended")
			}

			again := l.observe(alice, server)
			if again != outside && b.Unsolicited != ConfirmUnsolicited { // for which it came in time to take the port
				t.Errorf("the endpoint became %v from %v", again, outside)
			}
			outside = again
			last = during(UDPStream+unreplied/2, func() {
				l.send(server, outside, "answer")
				l.receive(alice)
				l.observe(alice, server)
			})
			l.untilFlowEnds("a", timer, last)
		})
	}
}

// untilFlowEnds waits until a box tracks no UDP flow, and fails unless that
// takes about as long as the timer since the last packet, which was sent after
// since, as far as a busy machine lets it see.
func (l *lab) untilFlowEnds(box string, timer time.Duration, since time.Time) {
	l.Helper()
	l.untilForgotten(box, unix.IPPROTO_UDP)
	if lived := time.Since(since); lived < timer*9/10 || lived > timer+patience {
		l.Errorf("the flow lived %v, want %v", lived, timer)
	}
}

// RFC 5382, REQ-5: an established connection has one timer, and a transitory
// one, that waits for an answer or ends, another.
func TestTCPTimers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b Behaviour) {
		const short = time.Second
		l := newLab(t, with(b, func(b *Behaviour) { b.TCPEstablished = short }), b)
		client, server := l.tcp("alice", "s1")
		last := during(short*3/2, func() {
			exchange(t, client, server, "in use")
			if n := l.mapped("a", TCP); n != 1 {
				t.Fatalf("%d mappings while one is in use", n)
			}
		})
		l.untilUnmapped("a", TCP, last, short)
		l.untilForgotten("a", unix.IPPROTO_TCP)

		// The site of bob is silent, so that the connection stays half-open.
		l.load("a", with(b, func(b *Behaviour) { b.TCPTransitory = short }))
		bob, _ := l.plan.Box("b")
		last = time.Now()
		if c, err := l.dial("alice", netip.AddrPortFrom(bob.WAN[0], 9).String(), 4*pace); !silence(err) {
			if err == nil {
				c.Close()
			}
			t.Fatalf("connect to nobody: %v, want silence", err)
		}
		if n := l.mapped("a", TCP); n != 1 {
			t.Fatalf("%d mappings of a half-open connection, want 1", n)
		}
		l.untilUnmapped("a", TCP, last, short)

		client, server = l.tcp("alice", "s1")
		exchange(t, client, server, "before the end")
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		last = time.Now()
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		l.untilUnmapped("a", TCP, last, short)
	})
}

// untilForgotten waits until connection tracking has no flow of a protocol.
func (l *lab) untilForgotten(box string, proto uint8) {
	l.Helper()
	for deadline := time.Now().Add(patience); tracked(l.T, l.space(box), proto) > 0; {
		if time.Now().After(deadline) {
			l.Fatalf("box %s still tracks a flow of protocol %d after %v", box, proto, patience)
		}
	}
}
