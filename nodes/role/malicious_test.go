package role

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/relay"
)

// malice is what all supernodes of an overlay do as relays: they keep what
// they are given to read, inside their own TLS, and change what they pass on.
type malice struct {
	mu     sync.Mutex
	read   bytes.Buffer
	media  int  // every so many-th media datagram is changed; zero: none
	stream bool // the next piece of the ends' stream is changed
	passed int  // media datagrams
}

// wrap has a supernode's media datagrams pass through m.
func (m *malice) wrap(n network.Network) network.Network { return evilNetwork{n, m} }

type evilNetwork struct {
	network.Network
	m *malice
}

func (n evilNetwork) ListenPacket(ctx context.Context, at netip.AddrPort) (net.PacketConn, error) {
	c, err := n.Network.ListenPacket(ctx, at)
	if err != nil {
		return nil, err
	}
	return evilSocket{c.(network.PacketConn), n.m, at.Port() == overlayPort}, nil
}

type evilSocket struct {
	network.PacketConn
	m         *malice
	supernode bool
}

func (s evilSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if s.supernode && b[0] >= 128 && b[0] <= 191 {
		s.m.mu.Lock()
		s.m.read.Write(b)
		s.m.passed++
		if s.m.media > 0 && s.m.passed%s.m.media == 0 {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
		}
		s.m.mu.Unlock()
	}
	return s.PacketConn.WriteToUDPAddrPort(b, to)
}

// evilLink is a relay's link to an end, read and changed within its TLS.
type evilLink struct {
	net.Conn
	m *malice
}

func (c evilLink) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.read.Write(b[:n])
	if c.m.stream && n > 40 { // more than a header, or a standby message
		c.m.stream = false
		b[n-1] ^= 1
	}
	return n, err
}

// maliciousRelays makes an overlay whose relays are malicious.
func maliciousRelays(t *testing.T) (*overlay, *malice) {
	t.Helper()
	m := &malice{}
	o := &overlay{t: t, net: memory.New(memory.Latency(5 * time.Millisecond)), wrap: m.wrap}
	o.added = func(n Node) {
		sn, ok := n.(*supernode)
		if !ok {
			return
		}
		sn.byALPN[identity.ALPNRelay] = func(ctx context.Context, c *tls.Conn, peer *identity.Certificate) {
			sn.relay.Load().ServeLink(ctx, evilLink{c, m}, relay.User(peer.Hash()))
		}
	}
	o.build("nec2006", 14, "alice", "bob")
	o.net.SetFilter(deaf(o.nodes["alice"].addr, o.nodes["bob"].addr))
	o.logins("alice", "bob")
	return o, m
}

// TestRelayReadsNothing is claim K4: what goes through a relay can't be read
// there.
func TestRelayReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := maliciousRelays(t)
		defer o.close()
		subject := bytes.Repeat([]byte("attack at dawn, "), 2<<10)
		var r control.CallResult
		o.must("alice", control.MethodCall, control.PeerParams{Callee: "bob", Payload: subject}, &r)
		if r.Media.Path != "relayed" || r.Signalling.Path != "relayed" {
			t.Fatalf("media %+v, signalling %+v", r.Media, r.Signalling)
		}
		time.Sleep(time.Second)
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.read.Len() < len(subject) || m.passed < 100 {
			t.Fatalf("the relays saw %d bytes and %d media packets: not all", m.read.Len(), m.passed)
		}
		if bytes.Contains(m.read.Bytes(), subject[:8]) {
			t.Error("a relay can read the subject of the call")
		}
	})
}

// TestRelayChangesMedia is claim K4: what a relay changes is refused and
// counted.
func TestRelayChangesMedia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := maliciousRelays(t)
		defer o.close()
		r, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.media = 9 // odd, so that both directions have their share
		m.mu.Unlock()
		time.Sleep(10 * time.Second)
		alice, bob := o.callOf("alice", r), o.callOf("bob", r)
		var end control.HangupResult
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, &end)
		<-bob.Over()
		if end.Rejected < 60 || end.Received < 600 || alice.Stats().Rejected != end.Rejected {
			t.Errorf("alice received %d and rejected %d of about 700, a ninth of which was changed", end.Received, end.Rejected)
		}
		if got := bob.Stats(); got.Received+got.Rejected != end.Sent || got.Rejected < 60 {
			t.Errorf("bob received %d and rejected %d of %d", got.Received, got.Rejected, end.Sent)
		}
	})
}

// TestRelayChangesSignalling has the carrying relay change a byte of the ends'
// own connection: it is found out, and the next relay is taken.
func TestRelayChangesSignalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := maliciousRelays(t)
		defer o.close()
		r, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		m.mu.Lock()
		m.stream = true
		m.mu.Unlock()
		time.Sleep(5 * time.Second)
		c := o.callOf("alice", r)
		if got := c.Signalling(); got.Path != "relayed" || got.Legs[0].To == r.Signalling.Legs[0].To {
			t.Errorf("signalling goes over %+v, and went over %+v", got, r.Signalling)
		}
		before := c.Stats().Received
		time.Sleep(time.Second)
		if n := c.Stats().Received - before; n < 69 {
			t.Errorf("%d packets came in a second after that", n)
		}
		o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
	})
}
