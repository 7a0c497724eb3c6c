package role

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/datagram"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/login"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/network"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/stun"
	"gauntlet/nodes/wire"
)

// linkMethod serves one method of a link. body is CBOR.
type linkMethod func(ctx context.Context, c *link.Conn, body []byte) (any, error)

// supernode is a supernode.
type supernode struct {
	node
	peers     *peers
	cert      *identity.Certificate
	udp       *datagram.Socket // the socket for everything
	alternate *datagram.Socket // the second port for STUN
	members   *membership.Membership
	sessions  *sessions
	links     *links                           // to other supernodes
	directory atomic.Pointer[directory.Server] // nil before start
	relay     atomic.Pointer[relay.Server]     // nil before start
	relaying  relay.Config

	// What the functions hook in, before start: methods of links, connections
	// by ALPN name, connections that begin with no TLS record, what runs once
	// the sockets are open, and what is closed at the end.
	methods map[string]linkMethod
	byALPN  map[string]connectionHandler
	plain   func(ctx context.Context, c net.Conn)
	atStart []func(ctx context.Context) error
	atClose []func()
}

func newSupernode(ctx context.Context, nw network.Network, log *slog.Logger) *supernode {
	n := &supernode{methods: map[string]linkMethod{}, byALPN: map[string]connectionHandler{},
		relaying: relay.Default()}
	n.init(ctx, nw, log)
	n.sessions = newSessions()
	n.hookLogin()
	n.hookDirectory()
	n.hookRelay()
	return n
}

func (n *supernode) Methods() control.Methods {
	return lifecycle(n.prepareSupernode, n.start, n.Close)
}

// own is the address that the supernode's certificate names.
func (n *supernode) own() netip.AddrPort { return netip.AddrPortFrom(n.addr, overlayPort) }

func (n *supernode) prepareSupernode(_ context.Context, p control.PrepareParams) (*control.PrepareResult, error) {
	if err := n.prepare(p); err != nil {
		return nil, err
	}
	var settings supernodeSettings
	err := readSettings(p.Settings, &settings)
	if err == nil {
		err = settings.apply(&n.relaying)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	public, err := json.Marshal(supernodePublic{Address: n.own(), Sign: n.keys.Public(),
		Seal: n.keys.Seal.PublicKey().Bytes(), Alternate: stun.Alternate(n.own()).Port()})
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return &control.PrepareResult{Functions: []string{}, Public: public}, nil
}

func (n *supernode) start(ctx context.Context, p control.StartParams) (struct{}, error) {
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
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.JoinTimeout,
		fmt.Errorf("not in service after %s", n.profile.JoinTimeout))
	defer cancel()
	if n.cert, err = n.enrol(ctx); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	if err := n.listen(ctx); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	for _, f := range n.atStart {
		if err := f(ctx); err != nil {
			return none, fmt.Errorf("start: %w", err)
		}
	}
	if err := n.join(ctx); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	return none, nil
}

// enrol asks the login server for this supernode's certificate, again and
// again until it is up.
func (n *supernode) enrol(ctx context.Context) (*identity.Certificate, error) {
	var last error
	for {
		cert, err := n.enrolOnce(ctx)
		if err == nil {
			n.log.Info("enrolled", "id", membership.IDOf(cert))
			return cert, nil
		}
		var refused *link.Error
		if errors.As(err, &refused) && refused.Code == link.CodeRefused {
			return nil, err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-time.After(n.profile.JoinRetry):
		}
	}
}

func (n *supernode) enrolOnce(ctx context.Context) (*identity.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, n.profile.ConnectTimeout+n.profile.AnswerTimeout)
	defer cancel()
	nc, err := n.nw.Dial(ctx, n.peers.login.Address)
	if err != nil {
		return nil, err
	}
	return login.Enrol(ctx, nc, n.keys, n.params.Name, n.own(), n.peers.roots)
}

// listen opens the sockets and starts gossip.
func (n *supernode) listen(ctx context.Context) error {
	cfg := datagram.Config{Keys: n.keys, Roots: n.peers.roots, Profile: n.profile, Log: n.log}
	var err error
	if n.udp, err = datagram.Listen(n.ctx, n.nw, n.own(), cfg); err != nil {
		return err
	}
	n.udp.SetCertificate(n.cert)
	if n.alternate, err = datagram.Listen(n.ctx, n.nw, stun.Alternate(n.own()), cfg); err != nil {
		return err
	}
	stun.Serve(n.udp)
	stun.Serve(n.alternate)
	n.udp.Handle(wire.KindList, n.list)
	n.udp.Handle(wire.KindHere, n.here)
	n.links = newLinks(n)
	n.members, err = membership.Start(n.ctx, membership.Config{Network: n.nw, Keys: n.keys, Cert: n.cert,
		Roots: n.peers.roots, Log: n.log, Online: n.sessions.count})
	if err != nil {
		return err
	}
	for _, port := range supernodePorts {
		l, err := n.nw.Listen(ctx, netip.AddrPortFrom(n.addr, port))
		if err != nil {
			if port == overlayPort {
				return err
			}
			// The fallback ports need a privilege; without them clients behind
			// strict firewalls don't reach this supernode, all others do.
			n.log.Warn("port not served", "port", port, "error", err)
			continue
		}
		n.accept(l)
	}
	return nil
}

// join gossips with all default supernodes that are up, until all are members
// or the time is over: a default that never comes up keeps nobody out.
func (n *supernode) join(ctx context.Context) error {
	var others []netip.AddrPort
	for _, s := range n.peers.supernodes {
		if s.addr != n.own() {
			others = append(others, s.addr)
		}
	}
	// Each begins after itself in the list, so that not all ask the same first.
	if i := slices.IndexFunc(n.peers.supernodes, func(s defaultSupernode) bool { return s.addr == n.own() }); i > 0 {
		others = append(slices.Clone(others[i:]), others[:i]...)
	}
	for {
		missing, err := n.members.Join(others)
		if missing == 0 {
			n.log.Info("supernode is up", "addr", n.own(), "members", len(others)+1)
			return nil
		}
		select {
		case <-ctx.Done():
			if n.ctx.Err() != nil {
				return errors.New("stopped while joining")
			}
			n.log.Warn("supernode is up, but not all default supernodes are", "missing", missing, "error", err)
			return nil
		case <-time.After(n.profile.JoinRetry):
		}
	}
}

// Close leaves the gossip and ends everything.
func (n *supernode) Close() error {
	var errs []error
	if n.members != nil && n.ctx.Err() == nil {
		errs = append(errs, n.members.Close())
	}
	n.cancel()
	for _, f := range n.atClose {
		f()
	}
	if n.links != nil {
		n.links.close()
	}
	for _, s := range []*datagram.Socket{n.udp, n.alternate} {
		if s != nil {
			s.Close()
		}
	}
	n.wg.Wait()
	return errors.Join(errs...)
}
