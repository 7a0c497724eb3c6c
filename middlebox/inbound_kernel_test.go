package middlebox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenAt is listen at a port that others may share.
func (l *lab) listenAt(host string, at netip.AddrPort) (n net.Listener) {
	l.Helper()
	if err := l.space(host).Do(func() (err error) {
		n, err = (&net.ListenConfig{Control: shared}).Listen(l.Context(), "tcp4", at.String())
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { n.Close() })
	return n
}

// callIn has a host outside connect to an external endpoint, and returns both
// ends. The one inside must see who has called.
func (l *lab) callIn(host string, outside netip.AddrPort, at net.Listener) (outer, inner net.Conn) {
	l.Helper()
	outer, err := l.dial(host, outside.String(), patience)
	if err != nil {
		l.Fatalf("connect from %s to %v: %v", host, outside, err)
	}
	if inner, err = at.Accept(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { outer.Close(); inner.Close() })
	if inner.RemoteAddr().String() != outer.LocalAddr().String() {
		l.Errorf("from %v: inside, it comes from %v", outer.LocalAddr(), inner.RemoteAddr())
	}
	return outer, inner
}

// endToEnd closes both ends of a connection, each by a FIN.
func endToEnd(t *testing.T, a, b net.Conn) {
	t.Helper()
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
}

// each TCP filtering, by every mapping.
func eachTCP(t *testing.T, filterings []Filtering, test func(t *testing.T, b Behaviour)) {
	for _, m := range []Mapping{MapEndpointIndependent, MapAddressDependent, MapAddressAndPortDependent} {
		for _, f := range filterings {
			t.Run(fmt.Sprintf("%s, tcp_filtering %s", m, f), func(t *testing.T) {
				t.Parallel()
				test(t, Behaviour{Mapping: m, Filtering: FilterAddressAndPortDependent, TCPFiltering: f})
			})
		}
	}
}

// RFC 5382, REQ-3: who connects to a mapped port gets in as the filtering says,
// the connection works, and nobody else hears anything (REQ-4), or what the
// behaviour says. What is no SYN doesn't get in.
func TestTCPFiltering(t *testing.T) {
	all := []Filtering{FilterEndpointIndependent, FilterAddressDependent, FilterAddressAndPortDependent}
	eachTCP(t, all, func(t *testing.T, b Behaviour) {
		for _, u := range []Unsolicited{DropUnsolicited, RejectUnsolicited} {
			b.Unsolicited = u
			l := newLab(t, b, b)
			inside := netip.AddrPortFrom(l.addr("alice"), 40_000)
			outside := l.seenFrom("alice", inside, l.listen("s1"))
			at := l.listenAt("alice", inside)
			for _, from := range []struct {
				host string
				in   bool
			}{
				{"s2", b.TCPFiltering == FilterEndpointIndependent},
				{"s1", b.TCPFiltering != FilterAddressAndPortDependent}, // by another port
				{"bob", b.TCPFiltering == FilterEndpointIndependent},
			} {
				if from.in && from.host != "bob" {
					outer, inner := l.callIn(from.host, outside, at)
					exchange(t, outer, inner, "let in")
					continue
				} else if from.in { // whose own address isn't seen
					c, err := l.dial(from.host, outside.String(), patience)
					if err != nil {
						t.Fatalf("connect from %s: %v", from.host, err)
					}
					c.Close()
					continue
				}
				before := l.dropped("a", UnsolicitedRule)
				limit := 4 * pace // of silence
				if u == RejectUnsolicited {
					limit = patience
				}
				c, err := l.dial(from.host, outside.String(), limit)
				if err == nil {
					c.Close()
				}
				if u == DropUnsolicited && !silence(err) || u == RejectUnsolicited && !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("unsolicited %s: connect from %s: %v", u, from.host, err)
				}
				l.untilAtLeast("a", UnsolicitedRule, before+1)
			}
		}
	})
}

// RFC 5382, REQ-5, of connections that begin outside: while one is in use, both
// it and the mapping that it came in by live, as long as an established one may
// be silent after that, and not so long once it is closed.
func TestTCPTimersFromOutside(t *testing.T) {
	const transitory, established = time.Second, 2 * time.Second
	eachTCP(t, []Filtering{FilterEndpointIndependent, FilterAddressDependent}, func(t *testing.T, b Behaviour) {
		begin := func(b Behaviour) (*lab, net.Conn, net.Conn) {
			l := newLab(t, b, b)
			inside, server := netip.AddrPortFrom(l.addr("alice"), 40_000), l.listen("s1")
			client, err := l.connect("alice", inside, server.Addr().(*net.TCPAddr).AddrPort())
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			outer, inner := l.callIn("s1", accepted.RemoteAddr().(*net.TCPAddr).AddrPort(), l.listenAt("alice", inside))
			exchange(t, outer, inner, "hello")
			endToEnd(t, client, accepted) // what made the mapping is over
			return l, outer, inner
		}
		l, outer, inner := begin(with(b, func(b *Behaviour) { b.TCPTransitory, b.TCPEstablished = transitory, established }))
		last := during(established*3/2, func() {
			exchange(t, outer, inner, "in use")
			if n := l.mapped("a", TCP); n != 1 {
				t.Fatalf("%d mappings while one is in use", n)
			}
		})
		l.untilUnmapped("a", TCP, last, established)
		if _, err := outer.Write([]byte("forgotten")); err != nil {
			t.Fatal(err)
		}
		l.untilAtLeast("a", UnsolicitedRule, 1)

		l, outer, inner = begin(with(b, func(b *Behaviour) { b.TCPTransitory = transitory }))
		exchange(t, outer, inner, "before the end")
		last = time.Now()
		endToEnd(t, outer, inner)
		l.untilUnmapped("a", TCP, last, transitory)
	})
}

// RFC 5382, REQ-2: a SYN that comes in while the internal endpoint's own is on
// its way belongs to that, whoever else might be let in.
func TestTCPSimultaneousOpenFiltered(t *testing.T) {
	for _, f := range []Filtering{FilterEndpointIndependent, FilterAddressDependent} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			home, _ := Preset("port-restricted")
			l := newLab(t, with(home, func(b *Behaviour) { b.TCPFiltering = f }), home)
			server := l.listen("s1")
			var inside, outside [2]netip.AddrPort
			for i, host := range []string{"alice", "bob"} {
				inside[i] = netip.AddrPortFrom(l.addr(host), 40_000)
				outside[i] = l.seenFrom(host, inside[i], server)
			}
			type opened struct {
				net.Conn
				error
			}
			done := make(chan opened, 1)
			go func() {
				c, err := l.connect("alice", inside[0], outside[1])
				done <- opened{c, err}
			}()
			l.untilAtLeast("b", UnsolicitedRule, 1)
			bob, err := l.connect("bob", inside[1], outside[0])
			alice := <-done
			if err := errors.Join(err, alice.error); err != nil {
				t.Fatal(err)
			}
			defer alice.Close()
			defer bob.Close()
			exchange(t, alice, bob, "at once")
		})
	}
}

// A NAT with an allow list keeps what it lets out as any other NAT does.
func TestAllowKeepsMapping(t *testing.T) {
	t.Parallel()
	home, _ := Preset("port-restricted")
	l := newLab(t, with(home, func(b *Behaviour) {
		b.Allow, b.TCPTransitory = []Service{{Protocol: TCP}}, time.Second
	}), home)
	client, server := l.tcp("alice", "s1")
	during(3*time.Second/2, func() {
		exchange(t, client, server, "in use")
		if n := l.mapped("a", TCP); n != 1 {
			t.Fatalf("%d mappings while one is in use", n)
		}
	})
}
