package role

import (
	"context"
	"crypto/tls"
	"net"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/relay"
)

// hookRelay has the supernode relay between clients.
func (n *supernode) hookRelay() {
	n.atStart = append(n.atStart, func(context.Context) error {
		server := relay.NewServer(n.relaying, n.udp)
		n.udp.HandleOther(server.HandleDatagram)
		n.relay.Store(server)
		return nil
	})
	n.atClose = append(n.atClose, func() {
		if server := n.relay.Load(); server != nil {
			server.Close()
		}
	})
	n.byALPN[identity.ALPNRelay] = func(ctx context.Context, c *tls.Conn, peer *identity.Certificate) {
		server := n.relay.Load()
		if server == nil || peer == nil || peer.Role != identity.RoleClient {
			c.Close()
			return
		}
		n.log.Info("relay session", "user", peer.Name)
		err := server.ServeLink(ctx, c, relay.User(peer.Hash()))
		n.log.Info("relay session over", "user", peer.Name, "reason", err)
	}
	n.plain = func(ctx context.Context, c net.Conn) {
		server := n.relay.Load()
		if server == nil {
			c.Close()
			return
		}
		err := server.ServeMedia(ctx, c)
		n.log.Info("media connection over", "from", c.RemoteAddr(), "reason", err)
	}
}
