package relay_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/relay"
)

var (
	alice = relay.User{1}
	bob   = relay.User{2}
	eve   = relay.User{3}

	linkAddr  = netip.MustParseAddrPort("198.18.0.1:33033")
	mediaAddr = netip.MustParseAddrPort("198.18.0.1:33034")
)

// world is a relay and hosts around it. The relay's TLS is left out: it is the
// role's, and the relay sees a connection and a user.
type world struct {
	t      *testing.T
	net    *memory.Internet
	server *relay.Server
	socket net.PacketConn
	users  sync.Map // source address of a link -> relay.User
	mu     sync.Mutex
	seen   [][]byte // media datagrams as the relay saw them
	errs   chan error
}

func (w *world) WriteTo(packet []byte, to netip.AddrPort) error {
	_, err := w.socket.WriteTo(packet, net.UDPAddrFromAddrPort(to))
	return err
}

// newWorld starts a relay in a synctest bubble; it ends with the test.
func newWorld(t *testing.T, config relay.Config) *world {
	w := &world{t: t, net: memory.New(memory.Latency(10 * time.Millisecond)), errs: make(chan error, 100)}
	host := w.net.Host("relay", linkAddr.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	w.server = relay.NewServer(config, w)
	var err error
	if w.socket, err = host.ListenPacket(ctx, linkAddr); err != nil {
		t.Fatal(err)
	}
	links, err := host.Listen(ctx, linkAddr)
	if err != nil {
		t.Fatal(err)
	}
	medias, err := host.Listen(ctx, mediaAddr)
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	serve := func(l net.Listener, one func(net.Conn) error) {
		tasks.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				tasks.Go(func() {
					if err := one(conn); err != nil {
						select {
						case w.errs <- err:
						default:
						}
					}
				})
			}
		})
	}
	serve(links, func(conn net.Conn) error {
		user, _ := w.users.Load(network.AddrPort(conn.RemoteAddr()).Addr())
		return w.server.ServeLink(ctx, conn, user.(relay.User))
	})
	serve(medias, func(conn net.Conn) error { return w.server.ServeMedia(ctx, conn) })
	tasks.Go(func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := w.socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			w.mu.Lock()
			w.seen = append(w.seen, bytes.Clone(buffer[:n]))
			w.mu.Unlock()
			w.server.HandleDatagram(network.AddrPort(from), buffer[:n])
		}
	})
	t.Cleanup(func() {
		w.server.Close()
		cancel()
		links.Close()
		medias.Close()
		w.socket.Close()
		tasks.Wait()
	})
	return w
}

// user is a client's host.
type user struct {
	w      *world
	host   network.Network
	id     relay.User
	socket net.PacketConn
}

func (w *world) user(name, addr string, id relay.User) *user {
	ip := netip.MustParseAddr(addr)
	w.users.Store(ip, id)
	u := &user{w: w, host: w.net.Host(name, ip), id: id}
	var err error
	if u.socket, err = u.host.ListenPacket(context.Background(), netip.AddrPortFrom(ip, 5000)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { u.socket.Close() })
	return u
}

// join opens a link and joins the session.
func (u *user) join(id relay.ID, peer relay.User) *relay.Session {
	u.w.t.Helper()
	conn, err := u.host.Dial(u.w.t.Context(), linkAddr)
	if err != nil {
		u.w.t.Fatal(err)
	}
	s, err := relay.Join(u.w.t.Context(), conn, id, peer)
	if err != nil {
		u.w.t.Fatal(err)
	}
	u.w.t.Cleanup(func() { s.Close() })
	return s
}

// pairUp makes a session of alice and bob.
func pairUp(t *testing.T, w *world) (a, b *user, sa, sb *relay.Session) {
	t.Helper()
	a, b = w.user("alice", "10.0.0.1", alice), w.user("bob", "10.0.0.2", bob)
	id := relay.NewID()
	sa, sb = a.join(id, bob), b.join(id, alice)
	for _, s := range []*relay.Session{sa, sb} {
		if err := s.WaitPaired(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return a, b, sa, sb
}

func (u *user) sendUDP(packet []byte) error {
	_, err := u.socket.WriteTo(packet, net.UDPAddrFromAddrPort(linkAddr))
	return err
}

func (u *user) receiveUDP() []byte {
	u.w.t.Helper()
	buffer := make([]byte, 2048)
	u.socket.SetReadDeadline(time.Now().Add(time.Second))
	n, _, err := u.socket.ReadFrom(buffer)
	if err != nil {
		u.w.t.Fatalf("await media: %v", err)
	}
	return buffer[:n]
}

func (u *user) dialMedia(ctx context.Context) (net.Conn, error) { return u.host.Dial(ctx, mediaAddr) }
