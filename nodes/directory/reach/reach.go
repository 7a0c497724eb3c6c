// Package reach connects two users over TCP, end to end: mutual TLS 1.3
// between the two, on a connection straight to the callee, or one that the
// callee makes when told, or the stream of a relay that both hold.
//
//	caller ── TLS ──> callee                     direct
//	caller <── TLS ── callee                     reversed
//	caller ── TLS ── relay ── TLS ── callee      relayed; others stand by
//	       ~~~~~~ TLS, end to end ~~~~~~
//
// Whoever opens the TLS connection says first which attempt it belongs to, in
// a preface of 17 bytes.
package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
)

// Hold is the purpose of relays that are only held, as a fallback.
const Hold = "gauntlet-hold/1"

// maxIncoming bounds the connections from others that are served at once, the
// held relays of searches among them.
const maxIncoming = 32

// Conn is an end-to-end connection of two users.
type Conn struct {
	*tls.Conn
	Peer    *identity.Certificate
	Session directory.Session
	Dialled bool         // this end is the TLS client
	Path    control.Path // as this end sees it, from caller to callee
	Group   *Group       // the relays held; nil without
}

// Handler serves a connection from another user, which it must close, and its
// group with it, if there is one. ctx ends with the reacher.
type Handler func(ctx context.Context, conn *Conn)

// GroupHandler takes the relays that a caller has both hold for a purpose
// without a connection over them, and closes the group in the end.
type GroupHandler func(ctx context.Context, group *Group)

// Reacher is a client's end of all such connections.
type Reacher struct {
	client *directory.Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	slots  chan struct{}

	mu       sync.Mutex
	handlers map[string]Handler
	groups   map[string]GroupHandler
	awaited  map[directory.Session]*awaited
	open     func(in *directory.Introduction, from *identity.Certificate)
	told     func(purpose string)
}

// awaited is a connection that a callee is to make.
type awaited struct {
	peer    [32]byte // hash of its certificate
	purpose string
	conn    chan *tls.Conn
}

// New makes a reacher that lasts until ctx ends or Close is called.
func New(ctx context.Context, client *directory.Client) *Reacher {
	r := &Reacher{
		client: client, slots: make(chan struct{}, maxIncoming),
		handlers: map[string]Handler{}, awaited: map[directory.Session]*awaited{},
	}
	r.groups = map[string]GroupHandler{Hold: func(ctx context.Context, g *Group) {
		g.Keep(ctx)
		g.Close()
	}}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// Close ends everything that the reacher started for others, and waits.
func (r *Reacher) Close() {
	r.cancel(net.ErrClosed)
	r.tasks.Wait()
}

// Handle sets who serves connections of a purpose, which is the ALPN name of
// their TLS.
func (r *Reacher) Handle(purpose string, h Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers[purpose] = h
}

// HandleGroup sets who takes groups of relays of a purpose.
func (r *Reacher) HandleGroup(purpose string, h GroupHandler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups[purpose] = h
}

// HandleOpen sets who sends datagrams to a user that asks for them. f must not
// block.
func (r *Reacher) HandleOpen(f func(in *directory.Introduction, from *identity.Certificate)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = f
}

// HandleTold sets who learns that another user is about to connect for a
// purpose. f must not block.
func (r *Reacher) HandleTold(f func(purpose string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = f
}

// start runs f, if there is room for one more.
func (r *Reacher) start(f func()) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return fmt.Errorf("%d connections from others are served already", maxIncoming)
	}
	r.tasks.Go(func() {
		defer func() { <-r.slots }()
		f()
	})
	return nil
}

// Preface: what the connection is, and the session that it belongs to.
const (
	prefaceCaller = 1 // the caller dialled
	prefaceCallee = 2 // the callee dialled, as it was told to
	prefaceSize   = 1 + len(directory.Session{})
)

func preface(kind byte, session directory.Session) []byte {
	return append([]byte{kind}, session[:]...)
}

func readPreface(r io.Reader) (kind byte, session directory.Session, err error) {
	var b [prefaceSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, session, fmt.Errorf("read preface: %w", err)
	}
	if b[0] != prefaceCaller && b[0] != prefaceCallee {
		return 0, session, fmt.Errorf("read preface: unknown kind %d", b[0])
	}
	return b[0], directory.Session(b[1:]), nil
}

// clientTLS and serverTLS are this user's configurations towards another user.
func (r *Reacher) clientTLS(purpose string) *tls.Config {
	return identity.ClientTLS(r.client.Keys, r.client.Cert, r.client.Roots, purpose, identity.RoleClient)
}

func (r *Reacher) serverTLS(purpose string) *tls.Config {
	return identity.ServerTLS(r.client.Keys, r.client.Cert, r.client.Roots, identity.Required,
		[]string{purpose}, identity.RoleClient)
}

// greet does the TLS client's part of a connection: handshake, check that the
// peer is the one meant, preface. It closes conn on an error.
func (r *Reacher) greet(ctx context.Context, conn net.Conn, purpose string, peer *identity.Certificate, kind byte, session directory.Session) (*tls.Conn, error) {
	secure := tls.Client(conn, r.clientTLS(purpose))
	err := secure.HandshakeContext(ctx)
	if err == nil {
		err = is(secure, r.client.Roots, peer)
	}
	if err == nil {
		if deadline, ok := ctx.Deadline(); ok {
			secure.SetWriteDeadline(deadline)
		}
		_, err = secure.Write(preface(kind, session))
		secure.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// is checks that a connection leads to the holder of a certificate.
func is(conn *tls.Conn, roots identity.Roots, peer *identity.Certificate) error {
	cert := identity.PeerCertificate(conn.ConnectionState(), roots)
	if cert == nil || cert.Hash() != peer.Hash() {
		return fmt.Errorf("the other end is not %s", peer.Name)
	}
	return nil
}

// dial connects straight to a user's listener.
func (r *Reacher) dial(ctx context.Context, to netip.AddrPort, purpose string, peer *identity.Certificate, kind byte, session directory.Session) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.client.Profile.ConnectTimeout,
		fmt.Errorf("no connection in %v", r.client.Profile.ConnectTimeout))
	defer cancel()
	conn, err := r.client.Network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return r.greet(ctx, conn, purpose, peer, kind, session)
}

// Accept takes a TLS connection of another user off this node's listener: the
// handshake is done, verified, and agreed on one of the purposes. It owns the
// connection from now on and does not block.
func (r *Reacher) Accept(conn *tls.Conn) error {
	err := r.start(func() {
		if err := r.accept(conn); err != nil {
			r.client.Log.Info("connection of another user ended", "from", conn.RemoteAddr(), "error", err)
		}
	})
	if err != nil {
		conn.Close()
		return fmt.Errorf("accept connection: %w", err)
	}
	return nil
}

func (r *Reacher) accept(conn *tls.Conn) error {
	purpose := conn.ConnectionState().NegotiatedProtocol
	peer := identity.PeerCertificate(conn.ConnectionState(), r.client.Roots)
	if peer == nil {
		conn.Close()
		return errors.New("it shows no certificate")
	}
	conn.SetReadDeadline(time.Now().Add(r.client.Profile.AnswerTimeout))
	kind, session, err := readPreface(conn)
	if err != nil {
		conn.Close()
		return err
	}
	conn.SetReadDeadline(time.Time{})
	if kind == prefaceCallee {
		return r.deliver(session, peer, purpose, conn)
	}
	serve, ok := r.handler(purpose)
	if !ok {
		conn.Close()
		return fmt.Errorf("nobody serves %s", purpose)
	}
	serve(r.ctx, &Conn{Conn: conn, Peer: peer, Session: session,
		Path: control.Path{Path: "direct", Legs: []control.Leg{{From: peer.Name, To: r.client.Cert.Name, Transport: "tcp"}}}})
	return nil
}

func (r *Reacher) handler(purpose string) (Handler, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.handlers[purpose]
	return h, ok
}

// deliver hands a connection that a callee made to the caller who awaits it.
func (r *Reacher) deliver(session directory.Session, peer *identity.Certificate, purpose string, conn *tls.Conn) error {
	r.mu.Lock()
	waiting, ok := r.awaited[session]
	if ok && waiting.peer == peer.Hash() && waiting.purpose == purpose {
		delete(r.awaited, session)
		waiting.conn <- conn // it has room for one, and gets one
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	conn.Close()
	return fmt.Errorf("%s was not asked to connect", peer.Name)
}

// Introduced does what an introduction asks of this user. It does not block.
func (r *Reacher) Introduced(in *directory.Introduction, from *identity.Certificate) error {
	if in.Kind == directory.Open {
		r.mu.Lock()
		open := r.open
		r.mu.Unlock()
		if open == nil {
			return errors.New("no search is served here")
		}
		open(in, from)
		return nil
	}
	r.mu.Lock()
	told := r.told
	r.mu.Unlock()
	if told != nil {
		told(in.Purpose)
	}
	return r.start(func() {
		if err := r.meet(in, from); err != nil {
			r.client.Log.Info("introduction came to nothing", "caller", from.Name, "error", err)
		}
	})
}

// meet connects to a caller as it asked.
func (r *Reacher) meet(in *directory.Introduction, from *identity.Certificate) error {
	r.mu.Lock()
	take := r.groups[in.Purpose]
	r.mu.Unlock()
	if in.Kind == directory.Through && take != nil {
		take(r.ctx, r.join(in.Places, in.Session, in.Purpose, from, false))
		return nil
	}
	serve, ok := r.handler(in.Purpose)
	if !ok {
		return fmt.Errorf("nobody serves %q", in.Purpose)
	}
	if in.Kind == directory.Dial {
		conn, err := r.dial(r.ctx, in.TCP, in.Purpose, from, prefaceCallee, in.Session)
		if err != nil {
			return fmt.Errorf("connect back: %w", err)
		}
		serve(r.ctx, &Conn{Conn: conn, Peer: from, Session: in.Session, Dialled: true,
			Path: control.Path{Path: "reversed", Legs: []control.Leg{{From: from.Name, To: r.client.Cert.Name, Transport: "tcp"}}}})
		return nil
	}
	group := r.join(in.Places, in.Session, in.Purpose, from, false)
	conn, err := group.Connect(r.ctx)
	if err != nil {
		group.Close()
		return err
	}
	serve(r.ctx, conn)
	return nil
}
