package middlebox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each preset, measured with real sockets: what mapping three destinations
// see, and who of them and of strangers gets in.
func TestPresetsMeasured(t *testing.T) {
	for _, name := range Presets() {
		declared, _ := Preset(name)
		if slices.Contains(declared.Block, UDP) || len(declared.Allow) > 0 || declared.Proxy != NoProxy {
			continue // TestBlock, TestAllow, lab/gateway
		}
		t.Run(name, func(t *testing.T) {
			l := newLab(t, declared, declared)
			alice := l.udp("alice")
			s1, s1b, s2 := l.udp("s1"), l.udp("s1"), l.udp("s2")
			seen := []netip.AddrPort{l.observe(alice, s1), l.observe(alice, s1b), l.observe(alice, s2)}
			checkMapping(t, l, declared, local(alice), seen)
			checkFiltering(t, l, declared)
			checkCollision(t, l, declared)
		})
	}
}

// checkMapping compares the external endpoints that two ports of one server
// and another server saw.
func checkMapping(t *testing.T, l *lab, declared Behaviour, inside netip.AddrPort, seen []netip.AddrPort) {
	t.Helper()
	box, _ := l.plan.Box("a")
	switch declared.Mapping {
	case NoMapping:
		for _, s := range seen {
			if s != inside {
				t.Errorf("no mapping: %v seen, want %v itself", s, inside)
			}
		}
	case MapEndpointIndependent:
		for _, s := range seen {
			if declared.filled().Ports != PreservePorts {
				if s != seen[0] || s.Addr() != box.WAN[0] {
					t.Errorf("endpoint-independent: %v seen, want the same everywhere", seen)
				}
			} else if want := netip.AddrPortFrom(box.WAN[0], inside.Port()); s != want {
				t.Errorf("endpoint-independent, ports preserved: %v seen, want %v", s, want)
			}
		}
	case MapAddressAndPortDependent:
		if seen[0] == seen[1] || seen[0] == seen[2] || seen[1] == seen[2] {
			t.Errorf("address-and-port-dependent: %v seen, want three different ones", seen)
		}
		for _, s := range seen {
			if s.Addr() != box.WAN[0] {
				t.Errorf("external address %v, want %v", s.Addr(), box.WAN[0])
			}
		}
	}
}

// checkFiltering sends to an external endpoint from the endpoint it has sent
// to, from another port there, and from another address, the last two before
// the first, so that what gets in of them has come when the first has.
func checkFiltering(t *testing.T, l *lab, declared Behaviour) {
	t.Helper()
	alice, asked, port, address := l.udp("alice"), l.udp("s1"), l.udp("s1"), l.udp("s2")
	outside := l.observe(alice, asked)
	var before uint64
	filtering := declared.filled().Filtering
	// The confirming router answers for itself instead of dropping.
	drops := filtering != FilterEndpointIndependent && declared.Unsolicited != ConfirmUnsolicited
	if drops {
		before = l.dropped("a", UnsolicitedRule)
	}
	l.send(port, outside, "other port")
	l.send(address, outside, "other address")
	want := map[Filtering][]string{
		FilterEndpointIndependent:     {"other address", "other port"},
		FilterAddressDependent:        {"other port"},
		FilterAddressAndPortDependent: nil,
	}[filtering]
	if drops {
		l.untilDropped("a", UnsolicitedRule, before+uint64(2-len(want)))
	}
	l.send(asked, outside, "asked")
	want = append(slices.Clone(want), "asked")
	var got []string
	for range want {
		payload, _ := l.receive(alice)
		got = append(got, payload)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("filtering %s: %q got in, want %q", filtering, got, want)
	}
}

// checkCollision has a second host want an external port that is taken. It
// must get another, and both must get their answers.
func checkCollision(t *testing.T, l *lab, declared Behaviour) {
	t.Helper()
	if !declared.Translates() {
		return
	}
	first, server := l.udp("alice"), l.udp("s1")
	l.observe(first, server)
	box, _ := l.plan.Box("a")
	// A second address on alice's host stands for a second host.
	second := l.secondHost(box.LANAddr.Next().Next(), local(first).Port())
	seen := []netip.AddrPort{l.observe(second, server), l.observe(second, l.udp("s2"))}
	if declared.Mapping == MapEndpointIndependent && seen[0] != seen[1] {
		t.Errorf("under a collision of ports the mapping is not endpoint-independent: %v", seen)
	}
	outside := l.observe(first, server)
	if outside == seen[0] {
		t.Fatalf("two internal endpoints share %v", outside)
	}
	l.send(server, seen[0], "second")
	l.send(server, outside, "first")
	if got, _ := l.receive(first); got != "first" {
		t.Errorf("the first host got %q", got)
	}
	if got, _ := l.receive(second); got != "second" {
		t.Errorf("the second host got %q", got)
	}
}

// secondHost opens a socket with another address of alice's LAN.
func (l *lab) secondHost(addr netip.Addr, port uint16) *net.UDPConn {
	l.Helper()
	var c *net.UDPConn
	if err := l.space("alice").Do(func() (err error) {
		if err := addAddress("eth0", netip.PrefixFrom(addr, 24)); err != nil {
			return err
		}
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// silence says that a connection attempt got no answer.
func silence(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// Everybody may open, and only those inside may connect through a firewall or
// NAT; the answer to a stranger is silence, or what the behaviour says.
func TestUnsolicitedTCP(t *testing.T) {
	nat, _ := Preset("port-restricted")
	open, _ := Preset("open")
	cases := []struct {
		name string
		b    Behaviour
		want error // of connecting to an external port that nobody has; nil is silence
	}{
		{"drop", nat, nil},
		{"reject", with(nat, func(b *Behaviour) { b.Unsolicited = RejectUnsolicited }), unix.ECONNREFUSED},
		{"confirm", with(nat, func(b *Behaviour) { b.Unsolicited = ConfirmUnsolicited }), unix.ECONNREFUSED},
		{"open", open, unix.ECONNREFUSED},
		{"firewall", with(open, func(b *Behaviour) { b.Filtering = FilterAddressAndPortDependent }), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.b, c.b)
			l.tcp("alice", "s1") // outward always works
			target := l.addr("alice")
			if c.b.Translates() {
				box, _ := l.plan.Box("a")
				target = box.WAN[0]
			}
			limit := patience
			if c.want == nil {
				limit = 200 * time.Millisecond
			}
			conn, err := l.dial("s1", netip.AddrPortFrom(target, 9).String(), limit)
			if err == nil {
				conn.Close()
			}
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && !silence(err) {
				t.Errorf("connect from outside: %v, want %v (nil: silence)", err, c.want)
			}
			if c.want == nil && l.dropped("a", UnsolicitedRule) == 0 {
				t.Error("nothing was dropped as unsolicited")
			}
		})
	}
}

// A change blocks flows that exist already, both ways, and leaves the other
// protocol alone; back again, they go on.
func TestBlock(t *testing.T) {
	for _, start := range []string{"stateful-firewall", "port-restricted"} {
		for _, blocked := range []Protocol{UDP, TCP} {
			t.Run(fmt.Sprintf("%s %s", start, blocked), func(t *testing.T) {
				before, _ := Preset(start)
				l := newLab(t, before, before)
				alice, server := l.udp("alice"), l.udp("s1")
				outside := l.observe(alice, server)
				client, accepted := l.tcp("alice", "s1")
				exchange(t, client, accepted, "before")

				preset, _ := Preset(string(blocked) + "-blocked")
				l.load("a", before.ChangedTo(preset))
				if blocked == UDP {
					l.send(alice, local(server), "out")
					l.send(server, outside, "in")
					l.untilDropped("a", "block-udp", 2)
					exchange(t, client, accepted, "tcp goes on")
				} else {
					if _, err := client.Write([]byte("out")); err != nil {
						t.Fatal(err)
					}
					if _, err := accepted.Write([]byte("in")); err != nil {
						t.Fatal(err)
					}
					l.untilAtLeast("a", "block-tcp", 2)
					l.send(alice, local(server), "udp goes on")
					if got, _ := l.receive(server); got != "udp goes on" {
						t.Errorf("server got %q", got)
					}
				}
				l.load("a", before)
				l.send(alice, local(server), "again")
				if got, from := l.receive(server); got != "again" || from != outside {
					t.Errorf("after the block: %q from %v, want \"again\" from %v", got, from, outside)
				}
			})
		}
	}
}

// exchange sends some bytes each way.
func exchange(t *testing.T, a, b net.Conn, payload string) {
	t.Helper()
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := ends[0].Write([]byte(payload)); err != nil {
			t.Fatal(err)
		}
		if err := ends[1].SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, len(payload))
		if n, err := ends[1].Read(buf); err != nil || string(buf[:n]) != payload {
			t.Fatalf("got %q, %v; want %q", buf[:n], err, payload)
		}
	}
}

// untilAtLeast waits until a rule has dropped that many packets, where TCP may
// send more.
func (l *lab) untilAtLeast(box, rule string, want uint64) {
	l.Helper()
	for deadline := time.Now().Add(patience); l.dropped(box, rule) < want; {
		if time.Now().After(deadline) {
			l.Fatalf("box %s, rule %s: %d dropped after %v, want at least %d", box, rule, l.dropped(box, rule), patience, want)
		}
	}
}

// A denied host is out of reach over what is denied and nothing else.
func TestDeny(t *testing.T) {
	b, _ := Preset("stateful-firewall")
	b.Deny = []Deny{{Host: "s1", Protocol: TCP}, {Host: "s2", Protocol: UDP, Port: 53}, {Host: "bob"}}
	l := newLab(t, b, Behaviour{})
	preset, _ := Preset("login-blocked")
	l.load("b", preset) // its "login" is s2
	if c, err := l.dial("bob", netip.AddrPortFrom(l.addr("s2"), 80).String(), 100*time.Millisecond); !silence(err) {
		if err == nil {
			c.Close()
		}
		t.Errorf("TCP to the login server: %v, want silence", err)
	}
	l.untilAtLeast("b", "deny-login", 1)
	l.tcp("bob", "s1")
	l.load("b", Behaviour{})
	if c, err := l.dial("alice", netip.AddrPortFrom(l.addr("s1"), 80).String(), 100*time.Millisecond); !silence(err) {
		if err == nil {
			c.Close()
		}
		t.Errorf("TCP to the denied host: %v, want silence", err)
	}
	l.untilAtLeast("a", "deny-s1", 1)
	l.observe(l.udp("alice"), l.udp("s1")) // UDP to it is not denied
	l.tcp("alice", "s2")                   // nor TCP to another
	alice := l.udp("alice")
	l.send(alice, netip.AddrPortFrom(l.addr("s2"), 53), "denied")
	l.untilDropped("a", "deny-s2", 1)
	l.send(alice, netip.AddrPortFrom(l.addr("bob"), 4000), "denied")
	l.untilDropped("a", "deny-bob", 1)
	l.send(l.udp("bob"), local(alice), "denied too")
	l.untilDropped("a", "deny-bob", 2)
}

// Without hairpin the external address leads nowhere from inside; the box's
// own address answers there.
func TestInsideToBox(t *testing.T) {
	b, _ := Preset("port-restricted")
	l := newLab(t, b, b)
	box, _ := l.plan.Box("a")
	l.send(l.udp("alice"), netip.AddrPortFrom(box.WAN[0], 4000), "hairpin")
	l.untilDropped("a", HairpinRule, 1)
	if _, err := l.dial("alice", netip.AddrPortFrom(box.LANAddr, 9).String(), patience); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect to the box: %v, want its refusal", err)
	}
}
