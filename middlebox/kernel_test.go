package middlebox

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/topo"
	"gauntlet/topo/ns"
)

// group is the NFLOG group of every box in the tests.
const group = 5

// patience bounds the wait for what must happen.
const patience = 5 * time.Second

// lab is two sites and two servers:
//
//	internet -- s1, s2
//	  |     |
//	  a     b
//	alice  bob
type lab struct {
	*testing.T
	plan *topo.Plan
	net  *topo.Network
}

// newLab builds it, with these behaviours.
func newLab(t *testing.T, a, b Behaviour) *lab {
	t.Helper()
	l := build(t, topo.Description{
		Boxes: []topo.BoxDescription{{Name: "a", Translates: a.Translates()}, {Name: "b", Translates: b.Translates()}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "a"}, {Name: "bob", Behind: "b"}},
	})
	l.load("a", a)
	l.load("b", b)
	return l
}

// build makes a lab that ends with the test, with no rules yet. Without the
// right to make namespaces the test is skipped, or fails if GAUNTLET_NO_SKIP
// is 1.
func build(t *testing.T, d topo.Description) *lab {
	t.Helper()
	plan, err := topo.NewPlan(d)
	if err != nil {
		t.Fatal(err)
	}
	network, err := topo.Build(t.Context(), plan)
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	return &lab{t, plan, network}
}

// load gives a box a behaviour, also while it runs.
func (l *lab) load(name string, b Behaviour) {
	l.Helper()
	box, _ := l.plan.Box(name)
	denied := map[string][]netip.Addr{"login": {l.addr("s2")}} // for the preset
	for _, h := range l.plan.Hosts {
		denied[h.Name] = h.Addrs
	}
	rs, err := Rules(Box{
		Name: name, Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, Routed: box.Routed(),
		Denied: denied, LogGroup: group,
	})
	if err != nil {
		l.Fatal(err)
	}
	if err := Load(l.space(name), rs); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) space(name string) *ns.Handle {
	h := l.net.Namespace(name)
	if h == nil {
		l.Fatalf("no namespace %s", name)
	}
	return h
}

func (l *lab) addr(host string) netip.Addr {
	h, ok := l.plan.Host(host)
	if !ok {
		l.Fatalf("no host %s", host)
	}
	return h.Addrs[0]
}

// udp opens a socket on a host, at any port.
func (l *lab) udp(host string) *net.UDPConn {
	l.Helper()
	var c *net.UDPConn
	if err := l.space(host).Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.addr(host), 0)))
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// tcp connects from one host to a listener on another and returns both ends.
func (l *lab) tcp(from, to string) (client, server net.Conn) {
	l.Helper()
	var listener net.Listener
	if err := l.space(to).Do(func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(l.addr(to), 0).String())
		return err
	}); err != nil {
		l.Fatal(err)
	}
	defer listener.Close()
	var err error
	if client, err = l.dial(from, listener.Addr().String(), patience); err != nil {
		l.Fatalf("connect from %s to %s: %v", from, to, err)
	}
	if server, err = listener.Accept(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// dial connects by TCP. The socket is opened inside; the wait is outside.
func (l *lab) dial(from, to string, limit time.Duration) (c net.Conn, err error) {
	err = l.space(from).Do(func() error {
		c, err = net.DialTimeout("tcp4", to, limit)
		return err
	})
	return c, err
}

func local(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (l *lab) send(from *net.UDPConn, to netip.AddrPort, payload string) {
	l.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(payload), to); err != nil {
		l.Fatalf("send %q to %v: %v", payload, to, err)
	}
}

// receive returns the next datagram.
func (l *lab) receive(c *net.UDPConn) (string, netip.AddrPort) {
	l.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		l.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		l.Fatalf("receive: %v", err)
	}
	return string(buf[:n]), from
}

// observe sends to a server and returns the external endpoint it saw, as STUN
// does.
func (l *lab) observe(client, server *net.UDPConn) netip.AddrPort {
	l.Helper()
	l.send(client, local(server), "who am I")
	_, seen := l.receive(server)
	return seen
}

// dropped returns how many packets a rule of a box has dropped.
func (l *lab) dropped(box, rule string) uint64 {
	l.Helper()
	counters, err := Counters(l.space(box))
	if err != nil {
		l.Fatal(err)
	}
	c, ok := counters[rule]
	if !ok {
		l.Fatalf("box %s has no counter %q: %v", box, rule, counters)
	}
	return c.Packets
}

// untilDropped waits until a rule of a box has dropped that many packets, and
// fails if it drops more or they don't come.
func (l *lab) untilDropped(box, rule string, want uint64) {
	l.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := l.dropped(box, rule)
		switch {
		case got == want:
			return
		case got > want:
			l.Fatalf("box %s, rule %s: %d dropped, want %d", box, rule, got, want)
		case time.Now().After(deadline):
			l.Fatalf("box %s, rule %s: %d dropped after %v, want %d", box, rule, got, patience, want)
		}
	}
}
