package middlebox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/topo"
)

// shared lets several sockets have one local endpoint.
func shared(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, failed)
}

// connect connects by TCP from a local endpoint that others may share.
func (l *lab) connect(host string, from, to netip.AddrPort) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	err = l.space(host).Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: shared}
		c, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	return c, err
}

// seenFrom connects to a listener and returns the endpoint that it saw. The
// connection stays until the test ends.
func (l *lab) seenFrom(host string, from netip.AddrPort, at net.Listener) netip.AddrPort {
	l.Helper()
	c, err := l.connect(host, from, at.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		l.Fatal(err)
	}
	accepted, err := at.Accept()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close(); accepted.Close() })
	exchange(l.T, c, accepted, "hello")
	return accepted.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func (l *lab) listen(host string) (n net.Listener) {
	l.Helper()
	if err := l.space(host).Do(func() (err error) {
		n, err = net.Listen("tcp4", netip.AddrPortFrom(l.addr(host), 0).String())
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { n.Close() })
	return n
}

// RFC 5382, REQ-1: TCP is mapped as UDP is. Two ports of one server and another
// server see what the mapping says, of two internal endpoints with one port,
// which never share an external endpoint (REQ-3 of RFC 4787).
func TestTCPMapping(t *testing.T) {
	for _, m := range []Mapping{MapEndpointIndependent, MapAddressDependent, MapAddressAndPortDependent} {
		for _, ports := range []Ports{PreservePorts, RandomPorts} {
			t.Run(string(m)+" "+string(ports), func(t *testing.T) {
				t.Parallel()
				b := Behaviour{Mapping: m, Filtering: FilterAddressAndPortDependent, Ports: ports}
				l := newLab(t, b, b)
				servers := []net.Listener{l.listen("s1"), l.listen("s1"), l.listen("s2")}
				const port = 40_000
				owners := map[netip.AddrPort]netip.Addr{}
				inside := l.addr("alice")
				for range 2 {
					var seen []netip.AddrPort
					for _, s := range servers {
						outside := l.seenFrom("alice", netip.AddrPortFrom(inside, port), s)
						if owner, ok := owners[outside]; ok && owner != inside {
							t.Errorf("%v and %v share %v", owner, inside, outside)
						}
						owners[outside] = inside
						seen = append(seen, outside)
					}
					samePort, sameAddress := m == MapEndpointIndependent, m != MapAddressAndPortDependent
					if (seen[0] == seen[1]) != sameAddress || (seen[0] == seen[2]) != samePort {
						t.Errorf("%s: two ports of a server and another server see %v", m, seen)
					}
					l.secondHost(inside.Next(), 0) // gives alice's host the address
					inside = inside.Next()
				}
			})
		}
	}
}

// RFC 5382, REQ-2: both ends may open at once, each through its own box, which
// is how TCP punches a hole (RFC 5128 §3.4). A mapping that depends on the peer
// leaves them nothing to aim at.
func TestTCPSimultaneousOpen(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"port-restricted", "port-restricted", true},
		{"full-cone", "restricted-cone", true},
		{"stateful-firewall", "port-restricted", true},
		{"symmetric", "port-restricted", false},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			t.Parallel()
			a, _ := Preset(c.a)
			b, _ := Preset(c.b)
			l := newLab(t, a, b)
			const port = 40_000
			server := l.listen("s1")
			ends := []string{"alice", "bob"}
			var inside, outside [2]netip.AddrPort
			for i, host := range ends {
				inside[i] = netip.AddrPortFrom(l.addr(host), port)
				outside[i] = l.seenFrom(host, inside[i], server)
			}
			var conns [2]net.Conn
			var errs [2]error
			var wg sync.WaitGroup
			for i, host := range ends {
				wg.Go(func() { conns[i], errs[i] = l.connect(host, inside[i], outside[1-i]) })
			}
			wg.Wait()
			for _, conn := range conns {
				if conn != nil {
					defer conn.Close()
				}
			}
			opened := errors.Join(errs[:]...) == nil
			if opened != c.want {
				t.Fatalf("both opened: %v (%v), want %v", opened, errors.Join(errs[:]...), c.want)
			}
			if opened {
				exchange(t, conns[0], conns[1], "punched")
			}
		})
	}
}

// The external port of a connection that has ended is free for another host
// once tcp_transitory is over, also towards the same server: connection tracking
// has forgotten the one that had it.
func TestTCPPortAgain(t *testing.T) {
	t.Parallel()
	const transitory = time.Second
	each(t, func(t *testing.T, b Behaviour) {
		b.Ports, b.TCPTransitory = PreservePorts, transitory
		for how, end := range map[string]func(c net.Conn) error{
			"closed": net.Conn.Close,
			"reset": func(c net.Conn) error {
				return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
			},
		} {
			t.Run(how, func(t *testing.T) {
				l := build(t, topo.Description{
					Boxes: []topo.BoxDescription{{Name: "a", Translates: true}},
					Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "a"}, {Name: "anna", Behind: "a"}},
				})
				l.load("a", b)
				at := l.listen("s1")
				to := at.Addr().(*net.TCPAddr).AddrPort()
				const port = 5000
				var seen []netip.AddrPort
				for _, host := range []string{"alice", "anna"} {
					c, err := l.connect(host, netip.AddrPortFrom(l.addr(host), port), to)
					if err != nil {
						t.Fatalf("%s: %v", host, err)
					}
					server, err := at.Accept()
					if err != nil {
						t.Fatal(err)
					}
					defer server.Close()
					exchange(t, c, server, "hello")
					seen = append(seen, server.RemoteAddr().(*net.TCPAddr).AddrPort())
					last := time.Now()
					if err := end(c); err != nil {
						t.Fatal(err)
					}
					server.Close()
					l.untilUnmapped("a", TCP, last, transitory)
				}
				if seen[0] != seen[1] || seen[0].Port() != port {
					t.Errorf("the server saw alice at %v and anna at %v; want both at port %d", seen[0], seen[1], port)
				}
			})
		}
	})
}
