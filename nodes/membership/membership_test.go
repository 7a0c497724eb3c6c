package membership

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is some supernodes that gossip on an internet in memory.
type cluster struct {
	t         *testing.T
	net       *memory.Internet
	authority *identity.Authority
	roots     identity.Roots
	members   []*Membership
	addrs     []netip.AddrPort
	stop      context.CancelFunc
	wg        sync.WaitGroup
}

func newCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: memory.New(memory.Latency(time.Millisecond))}
	var err error
	if c.authority, err = identity.NewAuthority(time.Now, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	p, err := c.authority.Public()
	if err != nil {
		t.Fatal(err)
	}
	if c.roots, err = p.Roots(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	for i := range size {
		c.members = append(c.members, c.start(ctx, i))
	}
	return c
}

// certified makes a supernode's host, keys and certificate.
func (c *cluster) certified(i int, role string) (network.Network, *identity.Keys, *identity.Certificate) {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}), 33033)
	keys, err := identity.NewKeys()
	if err != nil {
		c.t.Fatal(err)
	}
	s := identity.Subject{Name: "sn", Role: role, Sign: keys.Public(), Seal: keys.Seal.PublicKey()}
	if role == identity.RoleSupernode {
		s.Addr = at
	}
	cert, err := c.authority.Issue(s, 24*time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.net.Host("sn", at.Addr()), keys, cert
}

func (c *cluster) start(ctx context.Context, i int) *Membership {
	host, keys, cert := c.certified(i, identity.RoleSupernode)
	m, err := Start(ctx, Config{Network: host, Keys: keys, Cert: cert, Roots: c.roots,
		Log: slog.New(slog.DiscardHandler), Online: func() int { return i }})
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := host.Listen(ctx, cert.Addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.addrs = append(c.addrs, cert.Addr)
	context.AfterFunc(ctx, func() { l.Close() })
	config := identity.ServerTLS(keys, cert, c.roots, identity.Required, []string{identity.ALPNGossip}, identity.RoleSupernode)
	c.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() {
				t := tls.Server(nc, config)
				if t.Handshake() != nil {
					nc.Close()
					return
				}
				m.Serve(t, identity.PeerCertificate(t.ConnectionState(), c.roots))
			})
		}
	})
	return m
}

// close stops all, and lets memberlist's last probes run out.
func (c *cluster) close() {
	for _, m := range c.members {
		if err := m.Close(); err != nil {
			c.t.Error(err)
		}
	}
	c.stop()
	c.wg.Wait()
	time.Sleep(10 * time.Second)
}

// until waits, on the bubble's clock, for a condition.
func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

func TestGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 6)
		defer c.close()
		// A chain of introductions is enough: gossip does the rest, and where its
		// rumours die out too early, the exchange of whole lists every 15 s.
		for i, m := range c.members[1:] {
			if missing, err := m.Join(c.addrs[i : i+1]); missing != 0 {
				t.Fatalf("join: %v", err)
			}
		}
		until(t, 2*time.Minute, "all know all", func() bool {
			return !slices.ContainsFunc(c.members, func(m *Membership) bool { return len(m.Supernodes()) != 6 })
		})
		until(t, 2*time.Minute, "all know how many are on line", func() bool {
			return !slices.ContainsFunc(c.members, func(m *Membership) bool { return m.Online() != 0+1+2+3+4+5 })
		})
		gone := c.members[2]
		id := IDOf(gone.cfg.Cert)
		c.net.SetFilter(func(_ string, from, to netip.AddrPort) bool {
			return from.Addr() != gone.cfg.Cert.Addr.Addr() && to.Addr() != gone.cfg.Cert.Addr.Addr()
		})
		until(t, 2*time.Minute, "the dead one is found out", func() bool {
			return !slices.ContainsFunc(c.members, func(m *Membership) bool {
				return m != gone && (Contains(m.Supernodes(), id) || m.Certificate(id) != nil)
			})
		})
		c.net.SetFilter(nil)
	})
}

func TestAliveRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		d := (*delegate)(c.members[0])
		_, _, good := c.certified(7, identity.RoleSupernode)
		_, _, client := c.certified(8, identity.RoleLogin)
		node := func(cert *identity.Certificate, change func(*memberlist.Node)) *memberlist.Node {
			n := &memberlist.Node{Name: IDOf(cert).String(), Meta: cert.DER, Addr: good.Addr.Addr().AsSlice(), Port: good.Addr.Port()}
			if change != nil {
				change(n)
			}
			return n
		}
		if err := d.NotifyAlive(node(good, nil)); err != nil {
			t.Errorf("a good member is refused: %v", err)
		}
		for name, n := range map[string]*memberlist.Node{
			"no certificate":  node(good, func(n *memberlist.Node) { n.Meta = nil; n.Name = strings.Repeat("0", 32) }),
			"another role":    node(client, nil),
			"another name":    node(good, func(n *memberlist.Node) { n.Name = strings.Repeat("0", 32) }),
			"another address": node(good, func(n *memberlist.Node) { n.Addr = []byte{10, 0, 0, 1} }),
			"another port":    node(good, func(n *memberlist.Node) { n.Port++ }),
		} {
			if err := d.NotifyAlive(n); err == nil {
				t.Errorf("taken with %s", name)
			}
		}
	})
}
