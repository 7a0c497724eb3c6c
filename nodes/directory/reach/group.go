package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/relay"
)

// Group is the relays that two users hold in parallel, each with a session of
// both. One carries; when it dies, the next does. Both ends take them in the
// same order, so that they come to the same one.
type Group struct {
	reacher *Reacher
	session directory.Session
	purpose string
	peer    *identity.Certificate
	caller  bool
	cancel  context.CancelFunc
	tasks   sync.WaitGroup

	mu       sync.Mutex
	members  []*member
	absorbed []*Group
	standby  time.Duration // interval of the messages; zero: none are sent
	closed   bool
	carrying int // index of the member that carries the connection; -1: none
	media    int // index of the member that carries media; -1: none
}

// member is one relay of a group.
type member struct {
	place   directory.Place
	settled chan struct{} // closed once session is paired or err set
	session *relay.Session
	err     error
}

// join begins to join all the relays at once.
func (r *Reacher) join(places []directory.Place, session directory.Session, purpose string, peer *identity.Certificate, caller bool) *Group {
	g := &Group{reacher: r, session: session, purpose: purpose, peer: peer, caller: caller, carrying: -1, media: -1}
	ctx, cancel := context.WithCancel(r.ctx)
	g.cancel = cancel
	for _, place := range places {
		m := &member{place: place, settled: make(chan struct{})}
		g.members = append(g.members, m)
		g.tasks.Go(func() {
			defer close(m.settled)
			m.session, m.err = r.enter(ctx, place, peer)
		})
	}
	return g
}

// enter joins the session at one relay and waits for the other end there.
func (r *Reacher) enter(ctx context.Context, place directory.Place, peer *identity.Certificate) (*relay.Session, error) {
	// Long enough for one of the ports to be found closed, and short enough
	// for the next relay to have its turn in a call's set-up.
	bound := 3 * r.client.Profile.ConnectTimeout / 2
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not paired at %s in %v", place.Relay.Name, bound))
	defer cancel()
	conn, err := r.dialRelay(ctx, place.Relay)
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", place.Relay.Name, err)
	}
	session, err := relay.Join(ctx, conn, place.ID, relay.User(peer.Hash()))
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", place.Relay.Name, err)
	}
	if err := session.WaitPaired(ctx); err != nil {
		session.Close()
		return nil, fmt.Errorf("relay %s: %w", place.Relay.Name, err)
	}
	return session, nil
}

// dialRelay opens a TLS connection to a relay: at its port, then at those that
// firewalls leave open.
func (r *Reacher) dialRelay(ctx context.Context, to directory.Supernode) (net.Conn, error) {
	var failures []error
	for _, port := range r.client.Ports(to.Addr.Port()) {
		conn, err := r.dialPort(ctx, to, netip.AddrPortFrom(to.Addr.Addr(), port))
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

func (r *Reacher) dialPort(ctx context.Context, to directory.Supernode, at netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.client.Profile.ConnectTimeout,
		fmt.Errorf("no connection in %v", r.client.Profile.ConnectTimeout))
	defer cancel()
	conn, err := r.client.Network.Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, identity.ClientTLS(r.client.Keys, r.client.Cert, r.client.Roots,
		identity.ALPNRelay, identity.RoleSupernode))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", at, err)
	}
	cert := identity.PeerCertificate(secure.ConnectionState(), r.client.Roots)
	if cert == nil || cert.Name != to.Name {
		conn.Close()
		return nil, fmt.Errorf("%s is not supernode %s", at, to.Name)
	}
	return secure, nil
}

// Connect opens the end-to-end connection over the first relay after the one
// that carried before (the first of all at first) over which it works, and
// makes that one the carrying one. The caller's end is the TLS client.
func (g *Group) Connect(ctx context.Context) (*Conn, error) {
	next := g.Index() + 1
	if next > 0 {
		g.Leave(next - 1) // so that the other end goes on to the next as well
	}
	var failures []error
	for i := next; i < g.Len(); i++ {
		m := g.member(i)
		conn, err := g.connect(ctx, m)
		if err == nil {
			g.mu.Lock()
			g.carrying = i
			g.mu.Unlock()
			return &Conn{Conn: conn, Peer: g.peer, Session: g.session, Dialled: g.caller, Group: g, Path: g.path(m)}, nil
		}
		failures = append(failures, fmt.Errorf("over %s: %w", m.place.Relay.Name, err))
		if m.session != nil && ctx.Err() == nil {
			m.session.Close()
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(failures) == 0 {
		failures = append(failures, errors.New("none is left"))
	}
	return nil, fmt.Errorf("connect to %s over relays: %w", g.peer.Name, errors.Join(failures...))
}

// connect opens the end-to-end connection over one relay.
func (g *Group) connect(ctx context.Context, m *member) (*tls.Conn, error) {
	select {
	case <-m.settled:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if m.err != nil {
		return nil, m.err
	}
	bound := g.reacher.client.Profile.CallTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer from the other end in %v", bound))
	defer cancel()
	if g.caller {
		return g.reacher.greet(ctx, m.session.Stream(), g.purpose, g.peer, prefaceCaller, g.session)
	}
	conn := tls.Server(m.session.Stream(), g.reacher.serverTLS(g.purpose))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := is(conn, g.reacher.client.Roots, g.peer); err != nil {
		return nil, err
	}
	conn.SetReadDeadline(time.Now().Add(bound))
	defer conn.SetReadDeadline(time.Time{})
	kind, session, err := readPreface(conn)
	if err != nil {
		return nil, err
	}
	if kind != prefaceCaller || session != g.session {
		return nil, errors.New("the stream is of another session")
	}
	return conn, nil
}

// path is the claim for what one relay of the group carries.
func (g *Group) path(carrying *member) control.Path {
	from, to := g.reacher.client.Cert.Name, g.peer.Name
	if !g.caller {
		from, to = to, from
	}
	return control.Path{Path: "relayed", Hops: 1, Relays: g.Len(), Carrying: 1, Legs: []control.Leg{
		{From: from, To: carrying.place.Relay.Name, Transport: "tcp"},
		{From: carrying.place.Relay.Name, To: to, Transport: "tcp"},
	}}
}

// Held waits until it is settled which relays both ends hold, and returns how
// many those are now.
func (g *Group) Held(ctx context.Context) int {
	held := 0
	for _, m := range g.all() {
		select {
		case <-m.settled:
		case <-ctx.Done():
			return held
		}
		if m.alive() {
			held++
		}
	}
	return held
}

// Alive is how many relays both ends hold now, of those for which that is settled.
func (g *Group) Alive() (n int) {
	for _, m := range g.all() {
		select {
		case <-m.settled:
			if m.alive() {
				n++
			}
		default:
		}
	}
	return n
}

// alive says whether a settled member is held by both ends.
func (m *member) alive() bool { return m.err == nil && m.session.Err() == nil }

// Relay returns the session at relay number i (from 0) and the relay, once it
// is settled that both ends hold it; an error where they don't.
func (g *Group) Relay(ctx context.Context, i int) (*relay.Session, directory.Supernode, error) {
	m := g.member(i)
	if m == nil {
		return nil, directory.Supernode{}, fmt.Errorf("relay %d of %d", i, g.Len())
	}
	select {
	case <-m.settled:
	case <-ctx.Done():
		return nil, m.place.Relay, context.Cause(ctx)
	}
	if m.err != nil {
		return nil, m.place.Relay, m.err
	}
	return m.session, m.place.Relay, m.session.Err()
}

// Session is the attempt that the group belongs to.
func (g *Group) Session() directory.Session { return g.session }

// Peer is who holds the other ends.
func (g *Group) Peer() *identity.Certificate { return g.peer }

// Index is the number of the relay that carries, -1 for none.
func (g *Group) Index() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.carrying
}

// SetMedia says which relay carries media, -1 for none: see StandBy.
func (g *Group) SetMedia(i int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.media = i
}

// Len is the number of relays that were chosen.
func (g *Group) Len() int { return len(g.all()) }

func (g *Group) all() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[:len(g.members):len(g.members)]
}

// member is number i, nil if there is none.
func (g *Group) member(i int) *member {
	all := g.all()
	if i < 0 || i >= len(all) {
		return nil
	}
	return all[i]
}

// Names are the names of the relays.
func (g *Group) Names() []string {
	var names []string
	for _, m := range g.all() {
		names = append(names, m.place.Relay.Name)
	}
	return names
}

// Leave gives up a relay at this end, if it is joined; the relay then ends the
// session for the other end too.
func (g *Group) Leave(i int) {
	m := g.member(i)
	if m == nil {
		return
	}
	select {
	case <-m.settled:
		if m.session != nil {
			m.session.Close()
		}
	default:
	}
}

// Absorb adds the relays of another group of the same two users behind its
// own. The other end must do the same in the same order. The other group is
// this one's from then on.
func (g *Group) Absorb(other *Group) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		other.Close()
		return
	}
	g.absorbed = append(g.absorbed, other)
	from := len(g.members)
	g.members = append(g.members, other.all()...)
	if g.standby > 0 {
		g.keepUp(from)
	}
	g.mu.Unlock()
}

// StandBy sends small messages at this interval on every relay that both ends
// hold and that carries nothing, until the group is closed. On one that carries
// media alone, which is no frame of the relay's connection, they are as rare as those
// of a search's fallback: a relay ends a session that is silent.
func (g *Group) StandBy(interval time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.standby = interval; !g.closed {
		g.keepUp(0)
	}
}

// keepUp sends standby messages on the relays from number first on. Called
// with the lock held.
func (g *Group) keepUp(first int) {
	for i := first; i < len(g.members); i++ {
		m, interval := g.members[i], g.standby
		g.tasks.Go(func() { g.standBy(i, m, interval) })
	}
}

func (g *Group) standBy(i int, m *member, interval time.Duration) {
	<-m.settled
	if m.err != nil {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	sent := time.Now()
	for {
		select {
		case <-m.session.Done():
			return
		case <-ticker.C:
		}
		g.mu.Lock()
		silent := g.carrying == i // the connection has a refresh of its own
		if g.media == i && time.Since(sent) < g.reacher.client.Profile.FallbackKeepAlive {
			silent = true
		}
		g.mu.Unlock()
		if silent {
			continue
		}
		if sent = time.Now(); m.session.Standby() != nil {
			return
		}
	}
}

// Keep keeps the relays of a search for as long as the profile says, or until
// none is left or ctx ends. It does not close the group.
func (g *Group) Keep(ctx context.Context) {
	g.StandBy(g.reacher.client.Profile.FallbackKeepAlive)
	ctx, cancel := context.WithTimeout(ctx, g.reacher.client.Profile.FallbackHold)
	defer cancel()
	for _, m := range g.all() {
		select {
		case <-m.settled:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			continue
		}
		select {
		case <-m.session.Done():
		case <-ctx.Done():
			return
		}
	}
}

// Hold keeps the relays in the background, and closes the group in the end.
// After the group is closed it calls then, if that is not nil.
func (g *Group) Hold(then func()) {
	g.reacher.tasks.Go(func() {
		g.Keep(g.reacher.ctx)
		g.Close()
		if then != nil {
			then()
		}
	})
}

// Close leaves all relays and waits for what the group started.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	members, absorbed := g.members, g.absorbed
	g.mu.Unlock()
	g.cancel()
	for _, other := range absorbed {
		other.Close()
	}
	for _, m := range members {
		<-m.settled
		if m.session != nil {
			m.session.Close()
		}
	}
	g.tasks.Wait()
}
