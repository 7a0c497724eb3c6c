package role

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/login"
	"gauntlet/nodes/network"
)

// connectionHandler takes a TLS connection whose handshake is done, and closes
// it. peer is the verified certificate of the other side, or nil.
type connectionHandler func(ctx context.Context, c *tls.Conn, peer *identity.Certificate)

const (
	// maxConnections bounds a supernode's connections, and those of one
	// address: many users may share one.
	maxConnections        = 2048
	maxConnectionsAddress = 256
	// handshakeTime bounds the first byte and the TLS handshake.
	handshakeTime = 5 * time.Second
	// tlsRecord is the first byte of a TLS connection: a handshake record
	// (RFC 8446 §5.1).
	tlsRecord = 0x16
)

// accept serves a listener until the node ends.
func (n *supernode) accept(l net.Listener) {
	link.Accept(n.ctx, &n.wg, l, n.log, func(c net.Conn) func() {
		from := network.AddrPort(c.RemoteAddr()).Addr()
		if !n.sessions.admit(from) {
			return nil
		}
		return func() { n.sessions.dismiss(from) }
	}, n.connection)
}

// connection tells by the first byte what a connection is for.
func (n *supernode) connection(nc net.Conn) {
	from := network.AddrPort(nc.RemoteAddr()).Addr()
	stop := context.AfterFunc(n.ctx, func() { nc.Close() })
	defer stop()
	var first [1]byte
	nc.SetDeadline(time.Now().Add(handshakeTime))
	if _, err := io.ReadFull(nc, first[:]); err != nil {
		nc.Close()
		return
	}
	c := &begun{Conn: nc, first: first[:]}
	if first[0] != tlsRecord {
		if n.plain == nil {
			nc.Close()
			return
		}
		nc.SetDeadline(time.Time{})
		n.plain(n.ctx, c)
		return
	}
	protocols := []string{identity.ALPNLink, identity.ALPNGossip, identity.ALPNLogin}
	for name := range n.byALPN {
		protocols = append(protocols, name)
	}
	t := tls.Server(c, identity.ServerTLS(n.keys, n.cert, n.peers.roots, identity.Optional, protocols,
		identity.RoleClient, identity.RoleSupernode))
	if err := t.HandshakeContext(n.ctx); err != nil {
		nc.Close()
		n.log.Debug("connection refused", "from", from, "error", err)
		return
	}
	nc.SetDeadline(time.Time{})
	state := t.ConnectionState()
	peer := identity.PeerCertificate(state, n.peers.roots)
	switch name := state.NegotiatedProtocol; name {
	case identity.ALPNLink:
		n.serveLink(t, peer)
	case identity.ALPNGossip:
		if err := n.members.Serve(t, peer); err != nil {
			n.log.Debug("gossip refused", "from", from, "error", err)
		}
	case identity.ALPNLogin:
		n.relayLogin(t, from)
	default:
		if h := n.byALPN[name]; h != nil {
			h(n.ctx, t, peer)
			return
		}
		t.Close()
	}
}

// serveLink runs a link until it ends. A link whose peer doesn't say who it is
// lasts for a while only.
func (n *supernode) serveLink(t *tls.Conn, peer *identity.Certificate) {
	c := link.New(n.ctx, t, peer, n.handle)
	if peer == nil {
		timer := time.AfterFunc(n.profile.LoginTimeout, func() {
			if c.Peer() == nil {
				c.Close()
			}
		})
		defer timer.Stop()
	}
	c.Wait()
}

// handle serves the methods of links.
func (n *supernode) handle(ctx context.Context, c *link.Conn, method string, body []byte) (any, error) {
	f := n.methods[method]
	if f == nil {
		return nil, link.ErrUnknown
	}
	return f(ctx, c, body)
}

// relayLogin takes a client's connection to the login server, and to no other
// place.
func (n *supernode) relayLogin(t *tls.Conn, from netip.Addr) {
	defer t.Close()
	ctx, cancel := context.WithTimeout(n.ctx, n.profile.ConnectTimeout)
	defer cancel()
	server, err := n.nw.Dial(ctx, n.peers.login.Address)
	if err != nil {
		n.log.Warn("login not relayed", "from", from, "error", err)
		return
	}
	moved, err := login.Relay(n.ctx, t, server, n.profile.RelayBytes, n.profile.RelayTime)
	n.log.Info("login relayed", "from", from, "bytes", moved, "error", err)
}

// begun is a connection whose first bytes were read.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}
