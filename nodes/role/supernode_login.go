package role

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/stun"
	"gauntlet/nodes/wire"
)

// hookLogin adds what a supernode does at the login of a client.
func (n *supernode) hookLogin() {
	n.methods[methodSupernodes] = n.supernodes
	n.methods[methodAttach] = n.attach
	n.methods[methodProbe] = n.probe
	n.methods[methodElsewhere] = n.elsewhere
	n.methods[methodProbeFor] = n.probeFor
	n.methods[methodElsewhereFor] = n.elsewhereFor
}

// list answers a datagram with some supernodes, all if they fit.
func (n *supernode) list(_ context.Context, from netip.AddrPort, _ *wire.Opened) any {
	all := n.members.Supernodes()
	if len(all) > maxListed {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:maxListed]
	}
	return listAnswer{Supernodes: all, Observed: from}
}

// supernodes answers with the whole list.
func (n *supernode) supernodes(context.Context, *link.Conn, []byte) (any, error) {
	all := n.members.Supernodes()
	if limit := n.profile.HostCache; len(all) > limit {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:limit]
	}
	return supernodesAnswer{Supernodes: all, Online: n.members.Online()}, nil
}

// attach makes a link a user's session. The proof is bound to this TLS
// connection, so it is of no use on another.
func (n *supernode) attach(_ context.Context, c *link.Conn, body []byte) (any, error) {
	var r attachRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	cert, err := identity.Parse(r.Cert)
	if err != nil {
		return nil, err
	}
	if err := n.peers.roots.Verify(cert, time.Now()); err != nil {
		return nil, link.Refused("%v", err)
	}
	if cert.Role != identity.RoleClient {
		return nil, link.Refused("%s is no client", cert.Name)
	}
	exporter, err := c.Export(attachLabel, nil, attachSize)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(cert.Sign, append([]byte(attachDomain), exporter...), r.Proof) {
		return nil, link.Refused("no proof of the key of %s", cert.Name)
	}
	if known := c.Peer(); known != nil && known.Hash() != cert.Hash() {
		return nil, link.Refused("the link is %s's", known.Name)
	}
	c.SetPeer(cert)
	n.udp.Know(cert)
	if _, err := n.sessions.attach(cert, c, netip.AddrPortFrom(c.RemoteAddr().Addr(), r.TCP)); err != nil {
		return nil, err
	}
	n.log.Info("user attached", "user", cert.Name, "from", c.RemoteAddr())
	return attachAnswer{Observed: c.RemoteAddr()}, nil
}

// here takes note of a user's UDP address.
func (n *supernode) here(_ context.Context, from netip.AddrPort, o *wire.Opened) any {
	if o.Cert == nil {
		return nil
	}
	s := n.sessions.of(o.Cert.Name)
	if s == nil || s.cert.Hash() != o.CertHash {
		return nil
	}
	s.setUDP(from)
	return hereAnswer{Observed: from}
}

// errNotAttached refuses what only a user of this supernode may ask.
var errNotAttached = link.Refused("not a user of this supernode")

// other picks a supernode at random that is neither this one nor excluded.
func (n *supernode) other(exclude []membership.ID) (membership.Supernode, error) {
	self := membership.IDOf(n.cert)
	all := slices.DeleteFunc(n.members.Supernodes(), func(s membership.Supernode) bool {
		return s.ID == self || slices.Contains(exclude, s.ID)
	})
	if len(all) == 0 {
		return membership.Supernode{}, errors.New("there is no other supernode")
	}
	return all[rand.IntN(len(all))], nil
}

// probe has another supernode test whether a user can be reached.
func (n *supernode) probe(ctx context.Context, c *link.Conn, body []byte) (any, error) {
	var r probeRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	s := n.sessions.on(c)
	if s == nil {
		return nil, errNotAttached
	}
	if !s.tests.Allow() {
		return nil, link.Refused("too many tests")
	}
	other, err := n.other(r.Exclude)
	if err != nil {
		return nil, err
	}
	peer, err := n.links.to(ctx, other.ID)
	if err != nil {
		return nil, err
	}
	req := probeForRequest{Cert: s.cert.DER, TCP: s.tcp}
	if r.UDP {
		req.UDP = s.UDP()
	}
	var a probeAnswer
	if err := peer.Call(ctx, methodProbeFor, req, &a); err != nil {
		return nil, err
	}
	a.By = other.Addr.String()
	return a, nil
}

// isSupernode says whether a link's peer has shown a supernode's certificate.
func isSupernode(c *link.Conn) bool {
	p := c.Peer()
	return p != nil && p.Role == identity.RoleSupernode
}

// probeFor tests another supernode's user, over UDP and TCP at once. The user
// proves each time that it is the one of the certificate.
func (n *supernode) probeFor(ctx context.Context, c *link.Conn, body []byte) (any, error) {
	if !isSupernode(c) {
		return nil, link.Refused("for supernodes only")
	}
	var r probeForRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	cert, err := identity.Parse(r.Cert)
	if err != nil {
		return nil, err
	}
	if err := n.peers.roots.Verify(cert, time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.profile.ProbeTimeout)
	defer cancel()
	var a probeAnswer
	var wg sync.WaitGroup
	if r.UDP.IsValid() {
		wg.Go(func() { a.UDP = n.udp.Request(ctx, r.UDP, cert.Seal, wire.KindProbe, udpProbe{}, &udpProbed{}) == nil })
	}
	if r.TCP.IsValid() {
		wg.Go(func() { a.TCP = n.probeTCP(ctx, r.TCP, cert) == nil })
	}
	wg.Wait()
	n.log.Info("client probed", "user", cert.Name, "udp", a.UDP, "tcp", a.TCP)
	return a, nil
}

func (n *supernode) probeTCP(ctx context.Context, to netip.AddrPort, cert *identity.Certificate) error {
	nc, err := n.nw.Dial(ctx, to)
	if err != nil {
		return err
	}
	defer nc.Close()
	t := tls.Client(nc, identity.ClientTLS(n.keys, n.cert, n.peers.roots, identity.ALPNProbe, identity.RoleClient))
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("probe %s: %w", to, err)
	}
	if shown := identity.PeerCertificate(t.ConnectionState(), n.peers.roots); shown == nil || shown.Hash() != cert.Hash() {
		return fmt.Errorf("probe %s: somebody else answers", to)
	}
	return t.Close()
}

// elsewhere has a STUN response sent to the session's own UDP address, from
// this supernode's other port or from another supernode.
func (n *supernode) elsewhere(ctx context.Context, c *link.Conn, body []byte) (any, error) {
	var r elsewhereRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	s := n.sessions.on(c)
	if s == nil {
		return nil, errNotAttached
	}
	if !s.tests.Allow() {
		return nil, link.Refused("too many tests")
	}
	to := s.UDP()
	if !to.IsValid() {
		return nil, errors.New("no datagram of this user has come")
	}
	if !r.OtherAddress {
		response, err := stun.Response(r.ID, to)
		if err != nil {
			return nil, err
		}
		return nil, n.alternate.WriteTo(response, to)
	}
	other, err := n.other(r.Exclude)
	if err != nil {
		return nil, err
	}
	peer, err := n.links.to(ctx, other.ID)
	if err != nil {
		return nil, err
	}
	return nil, peer.Call(ctx, methodElsewhereFor, elsewhereForRequest{ID: r.ID, To: to}, nil)
}

// elsewhereFor sends a STUN response for another supernode.
func (n *supernode) elsewhereFor(_ context.Context, c *link.Conn, body []byte) (any, error) {
	if !isSupernode(c) {
		return nil, link.Refused("for supernodes only")
	}
	var r elsewhereForRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	response, err := stun.Response(r.ID, r.To)
	if err != nil {
		return nil, err
	}
	return nil, n.udp.WriteTo(response, r.To)
}
