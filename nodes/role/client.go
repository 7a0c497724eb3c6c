package role

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/datagram"
	"gauntlet/nodes/hostcache"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/network"
	"gauntlet/nodes/wire"
)

// client is a user's node.
type client struct {
	node
	peers    *peers
	settings clientSettings
	udp      *datagram.Socket
	tcp      net.Listener
	rsaReady chan struct{} // closed when the first login's key pair is made
	rsa      *rsa.PrivateKey
	rsaErr   error

	mu    sync.Mutex
	cache *hostcache.Cache
	user  *user // nil: not logged in
	busy  bool  // a login is under way

	held functionsOf // the functions of who is logged in

	// What the functions hook in, before start.
	functions []string
	offered   control.Methods
	methods   map[string]linkMethod        // of the link to the own supernode
	byALPN    map[string]connectionHandler // of connections to the client's listener
	plain     func(c net.Conn)             // takes such as begin with no TLS record
	atStart   []func(ctx context.Context) error
	atLogin   []func(ctx context.Context, u *user) error // logged in, or at a new supernode
	atClose   []func()
}

// user is who is logged in at the client.
type user struct {
	name string
	cert *identity.Certificate
	udp  bool // datagrams are answered

	ctx    context.Context // ends at log out
	cancel context.CancelFunc

	mu       sync.Mutex
	own      *home         // the own supernode; nil while it is being replaced
	moved    chan struct{} // closed when own changes
	reach    reach
	external netip.AddrPort // of the UDP socket, as the own supernode sees it
	lastErr  error          // of the last attempt to replace the own supernode
}

// home is the own supernode and the link to it.
type home struct {
	node membership.Supernode
	cert *identity.Certificate
	link *link.Conn
}

// reach is what login found out about who gets in.
type reach struct {
	box control.Middlebox
	udp bool // anybody's datagrams get in
	tcp bool // anybody's connections get in
}

func newClient(ctx context.Context, nw network.Network, log *slog.Logger) *client {
	n := &client{rsaReady: make(chan struct{}), offered: control.Methods{},
		methods: map[string]linkMethod{}, byALPN: map[string]connectionHandler{}}
	n.init(ctx, nw, log)
	n.hookLogin()
	n.hookFunctions()
	return n
}

func (n *client) Methods() control.Methods {
	m := lifecycle(n.prepareClient, n.start, n.Close)
	for name, method := range n.offered {
		m[name] = method
	}
	return m
}

// offer adds a function that the lab may call.
func (n *client) offer(name string, m control.Method) {
	n.functions = append(n.functions, name)
	n.offered[name] = m
}

func (n *client) prepareClient(_ context.Context, p control.PrepareParams) (*control.PrepareResult, error) {
	if err := n.prepare(p); err != nil {
		return nil, err
	}
	err := readSettings(p.Settings, &n.settings)
	if err == nil {
		err = n.settings.apply(n.profile)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return &control.PrepareResult{Functions: n.functions, Public: []byte("{}")}, nil
}

func (n *client) start(ctx context.Context, p control.StartParams) (struct{}, error) {
	var none struct{}
	if err := n.begin(); err != nil {
		return none, err
	}
	var err error
	if n.peers, err = readPeers(p.Peers); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	if n.peers.login == nil {
		return none, errors.New("start: there is no login server")
	}
	if n.cache, err = hostcache.Load(n.params.Dir, n.profile.HostCache); err != nil {
		n.log.Warn("host cache not read, beginning with the default supernodes", "error", err)
		n.cache = hostcache.New(n.profile.HostCache)
	}
	for _, s := range n.peers.supernodes {
		n.cache.Add(hostcache.Entry{Default: true, Supernode: membership.Supernode{Addr: s.addr, Seal: s.seal.Bytes()}})
	}
	if err := n.listen(ctx); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	for _, f := range n.atStart {
		if err := f(ctx); err != nil {
			return none, fmt.Errorf("start: %w", err)
		}
	}
	// The pair of the first login is made ahead, as it takes a while.
	n.wg.Go(func() {
		n.rsa, n.rsaErr = identity.NewRSA()
		close(n.rsaReady)
	})
	n.log.Info("client is up", "addr", n.udp.LocalAddr(), "supernodes", len(n.cache.Entries()))
	return none, nil
}

// maxPortTries is how often a port is drawn until it is free in UDP and TCP.
const maxPortTries = 16

// listen opens the UDP socket and the TCP listener, on one random port.
func (n *client) listen(ctx context.Context) error {
	cfg := datagram.Config{Keys: n.keys, Roots: n.peers.roots, Profile: n.profile, Log: n.log}
	for try := 1; ; try++ {
		udp, err := datagram.Listen(n.ctx, n.nw, netip.AddrPortFrom(n.addr, 0), cfg)
		if err != nil {
			return err
		}
		l, err := n.nw.Listen(ctx, netip.AddrPortFrom(n.addr, udp.LocalAddr().Port()))
		if err != nil {
			udp.Close()
			if try < maxPortTries {
				continue
			}
			return err
		}
		n.udp, n.tcp = udp, l
		break
	}
	n.udp.Handle(wire.KindProbe, n.probed)
	link.Accept(n.ctx, &n.wg, n.tcp, n.log, link.AtMost(maxIncoming), n.incoming)
	return nil
}

// maxIncoming bounds the connections to a client's listener.
const maxIncoming = 64

// incoming takes a connection: a supernode's probe, which ends with the
// handshake, media, which begins with a token, or what a function has hooked
// in.
func (n *client) incoming(nc net.Conn) {
	stop := context.AfterFunc(n.ctx, func() { nc.Close() })
	defer stop()
	u := n.current()
	if u == nil {
		nc.Close()
		return
	}
	var first [1]byte
	nc.SetDeadline(time.Now().Add(handshakeTime))
	if _, err := io.ReadFull(nc, first[:]); err != nil {
		nc.Close()
		return
	}
	begun := &begun{Conn: nc, first: first[:]}
	if first[0] != tlsRecord {
		nc.SetDeadline(time.Time{})
		n.plain(begun)
		return
	}
	protocols := []string{identity.ALPNProbe}
	for name := range n.byALPN {
		protocols = append(protocols, name)
	}
	t := tls.Server(begun, identity.ServerTLS(n.keys, u.cert, n.peers.roots, identity.Required, protocols,
		identity.RoleClient, identity.RoleSupernode))
	if err := t.HandshakeContext(n.ctx); err != nil {
		nc.Close()
		n.log.Debug("connection refused", "from", nc.RemoteAddr(), "error", err)
		return
	}
	nc.SetDeadline(time.Time{})
	state := t.ConnectionState()
	if h := n.byALPN[state.NegotiatedProtocol]; h != nil {
		h(n.ctx, t, identity.PeerCertificate(state, n.peers.roots))
		return
	}
	t.Close()
}

// probed answers a supernode that tests whether datagrams get in.
func (n *client) probed(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
	if o.Cert == nil || o.Cert.Role != identity.RoleSupernode {
		return nil
	}
	return udpProbed{}
}

// current is who is logged in, nil if nobody is.
func (n *client) current() *user {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.user
}

// Close logs out and ends everything.
func (n *client) Close() error {
	n.mu.Lock()
	u := n.user
	n.user = nil
	n.mu.Unlock()
	for _, f := range n.atClose {
		f()
	}
	if u != nil {
		u.cancel()
	}
	n.cancel()
	if n.udp != nil {
		n.udp.Close()
	}
	n.wg.Wait()
	return nil
}
