// Package membership is how supernodes know each other: SWIM gossip
// (hashicorp/memberlist) over mutual TLS between supernode certificates, and
// the rendezvous hashing that says which of them keep a user's record.
package membership

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/wire"
)

// leaveTimeout bounds telling the others that this supernode leaves.
const leaveTimeout = 200 * time.Millisecond

// Config is what a membership needs.
type Config struct {
	Network network.Network
	Keys    *identity.Keys
	Cert    *identity.Certificate // this supernode's
	Roots   identity.Roots
	Log     *slog.Logger
	// Online is how many users are logged in at this supernode now.
	Online func() int
}

// Membership is a supernode's view of all supernodes. Every member has shown a
// certificate of the pinned authority: gossip carries it, and each supernode
// checks it for itself.
type Membership struct {
	cfg       Config
	transport *transport
	list      *memberlist.Memberlist

	mu     sync.Mutex
	certs  map[string]*identity.Certificate // by member name
	online map[string]count                 // users at other supernodes
}

// Start makes this supernode a cluster of one.
func Start(ctx context.Context, cfg Config) (*Membership, error) {
	m := &Membership{cfg: cfg, certs: map[string]*identity.Certificate{}, online: map[string]count{}}
	m.transport = newTransport(ctx, cfg.Cert.Addr, m.dial)
	mc := memberlist.DefaultLANConfig()
	mc.Name = IDOf(cfg.Cert).String()
	mc.Transport = m.transport
	mc.AdvertiseAddr = cfg.Cert.Addr.Addr().String()
	mc.AdvertisePort = int(cfg.Cert.Addr.Port())
	mc.BindAddr, mc.BindPort = mc.AdvertiseAddr, mc.AdvertisePort
	// TLS carries the messages: there is nothing to gain from compressing a
	// certificate, and no datagram to fall back from.
	mc.EnableCompression = false
	mc.DisableTcpPings = true
	mc.Delegate = (*delegate)(m)
	mc.Alive = (*delegate)(m)
	mc.Events = (*delegate)(m)
	mc.Logger = log.New(logWriter{cfg.Log}, "", 0)
	mc.PushPullInterval = 15 * time.Second
	list, err := memberlist.Create(mc)
	if err != nil {
		m.transport.Shutdown()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	m.list = list
	return m, nil
}

// dial opens a connection to another supernode's gossip.
func (m *Membership) dial(ctx context.Context, to netip.AddrPort) (*tls.Conn, error) {
	nc, err := m.cfg.Network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	c := tls.Client(nc, identity.ClientTLS(m.cfg.Keys, m.cfg.Cert, m.cfg.Roots, identity.ALPNGossip, identity.RoleSupernode))
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return c, nil
}

// Serve takes an incoming gossip connection whose handshake is done and
// returns when it is done with it. peer is the verified certificate.
func (m *Membership) Serve(c *tls.Conn, peer *identity.Certificate) error {
	if peer == nil || peer.Role != identity.RoleSupernode {
		c.Close()
		return errors.New("gossip: peer is no supernode")
	}
	return m.transport.serve(c, peer.Addr)
}

// Join exchanges member lists with those of these supernodes that aren't
// members yet. It returns how many are still missing, and the last error.
func (m *Membership) Join(addrs []netip.AddrPort) (missing int, err error) {
	for _, a := range addrs {
		if m.has(a) {
			continue
		}
		if _, e := m.list.Join([]string{a.String()}); e != nil {
			err = e
		}
	}
	for _, a := range addrs {
		if !m.has(a) {
			missing++
		}
	}
	if missing == 0 {
		return 0, nil
	}
	return missing, err
}

func (m *Membership) has(a netip.AddrPort) bool {
	return slices.ContainsFunc(m.Supernodes(), func(s Supernode) bool { return s.Addr == a })
}

// Supernodes are the members that are alive, this one among them, in the
// order of their IDs.
func (m *Membership) Supernodes() []Supernode {
	var all []Supernode
	for _, n := range m.list.Members() {
		m.mu.Lock()
		c := m.certs[n.Name]
		m.mu.Unlock()
		if c != nil {
			all = append(all, SupernodeOf(c))
		}
	}
	slices.SortFunc(all, func(a, b Supernode) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all
}

// Certificate is a member's certificate, nil if there is no such member.
func (m *Membership) Certificate(id ID) *identity.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.certs[id.String()]
}

// Online is how many users are logged in at all supernodes, as far as gossip
// has told.
func (m *Membership) Online() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := m.cfg.Online()
	for _, c := range m.online {
		total += int(c.Online)
	}
	return total
}

// Close tells the others and ends.
func (m *Membership) Close() error {
	m.list.Leave(leaveTimeout) // an error only means that somebody was not told
	if err := m.list.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// delegate is what memberlist calls.
type delegate Membership

// NodeMeta is this supernode's certificate: about 350 of 512 bytes.
func (d *delegate) NodeMeta(limit int) []byte {
	if len(d.cfg.Cert.DER) > limit {
		return nil // the others will refuse, and say so
	}
	return d.cfg.Cert.DER
}

// NotifyAlive refuses a member without a certificate that fits its name and
// address.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	d.mu.Lock()
	known := d.certs[n.Name]
	d.mu.Unlock()
	c := known
	if known == nil || !slices.Equal(known.DER, n.Meta) {
		var err error
		if c, err = identity.Parse(n.Meta); err != nil {
			return fmt.Errorf("member %s: %w", n.Name, err)
		}
	}
	if err := d.cfg.Roots.Verify(c, time.Now()); err != nil {
		return fmt.Errorf("member %s: %w", n.Name, err)
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	at := netip.AddrPortFrom(addr.Unmap(), n.Port)
	if c.Role != identity.RoleSupernode || IDOf(c).String() != n.Name || c.Addr != at {
		return fmt.Errorf("member %s at %s: certificate of %s %s at %s", n.Name, at, c.Role, IDOf(c), c.Addr)
	}
	d.mu.Lock()
	d.certs[n.Name] = c
	d.mu.Unlock()
	return nil
}

func (d *delegate) NotifyJoin(n *memberlist.Node) {}

func (d *delegate) NotifyUpdate(n *memberlist.Node) {}

func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.certs, n.Name)
	delete(d.online, n.Name)
}

func (d *delegate) NotifyMsg([]byte) {}

func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// count is how many users one supernode has, as of a time on its own clock.
// Supernodes hand on what they know of all, newest first; it is a statistic,
// and nothing is decided by it.
type count struct {
	_      struct{} `cbor:",toarray"`
	ID     ID
	Online uint32
	At     int64 // Unix time in milliseconds
}

// maxCounts bounds the counts in one message.
const maxCounts = 512

func (d *delegate) LocalState(bool) []byte {
	list := []count{{ID: IDOf(d.cfg.Cert), Online: uint32(d.cfg.Online()), At: time.Now().UnixMilli()}}
	d.mu.Lock()
	for _, c := range d.online {
		if len(list) < maxCounts {
			list = append(list, c)
		}
	}
	d.mu.Unlock()
	b, err := wire.Marshal(list)
	if err != nil {
		return nil
	}
	return b
}

func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	var list []count
	if wire.Unmarshal(b, &list) != nil {
		return
	}
	self := IDOf(d.cfg.Cert)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range list {
		key := c.ID.String()
		if _, member := d.certs[key]; member && c.ID != self && c.At > d.online[key].At {
			d.online[key] = c
		}
	}
}

// logWriter sends memberlist's own log lines to the node's log.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug("gossip", "line", string(b))
	return len(b), nil
}
