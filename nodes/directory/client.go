package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/network"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

// ErrNotFound means that no supernode that was asked knows the user.
var ErrNotFound = errors.New("no supernode knows this user")

// ErrNoSupernode means that the client has no living link to a supernode.
var ErrNoSupernode = errors.New("no supernode answers")

// Client is a logged-in client's half of the directory, and what the functions
// built on it (search, call) need of the node.
type Client struct {
	Network network.Network
	Profile *profile.Profile
	Keys    *identity.Keys
	Cert    *identity.Certificate
	Roots   identity.Roots
	Socket  *datagram.Socket
	Log     *slog.Logger

	// Home is the supernode that the client is linked to, with the link. While
	// there is none it waits until there is or ctx ends, and then says why.
	Home func(ctx context.Context) (Supernode, *link.Conn, error)
	// Reach is how this client can be reached, as login found out.
	Reach func() Reach
	// Observe asks a supernode by STUN how it sees the socket now; Reach then
	// says so too.
	Observe func(ctx context.Context) (netip.AddrPort, error)
	// Box is the mapping and filtering of this client's middlebox as login
	// found out, empty where that is not known.
	Box func() (mapping, filtering string)
	// Predict says whether the ports that a symmetric NAT gives next are to be
	// guessed; Servers are the supernodes known that may be asked for it.
	Predict func() bool
	Servers func() []netip.AddrPort

	mu       sync.Mutex
	sequence uint64
	sight    *sighting // the last one, nil at first
}

// Ports are the TCP ports of a supernode to try, in order: the one through
// which the own supernode is reached, if it is one of those that firewalls
// leave open; then the given one and the others.
func (c *Client) Ports(given uint16) []uint16 {
	ports := append([]uint16{given}, c.Profile.FallbackPorts...)
	now, cancel := context.WithCancel(context.Background())
	cancel() // it need not wait for a supernode
	if _, conn, err := c.Home(now); err == nil {
		if i := slices.Index(ports, conn.RemoteAddr().Port()); i > 0 {
			working := ports[i]
			ports = slices.Insert(slices.Delete(ports, i, i+1), 0, working)
		}
	}
	return ports
}

// ask makes a request over the link to the own supernode.
func (c *Client) ask(ctx context.Context, method string, request, answer any) error {
	_, conn, err := c.Home(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSupernode, err)
	}
	err = conn.Call(ctx, method, request, answer)
	var refused *link.Error
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("%w: %w", ErrNoSupernode, err)
	}
	return err
}

// Publish signs a new record of this user and has it stored on the supernodes
// responsible for the name. It returns on how many.
func (c *Client) Publish(ctx context.Context) (stored int, err error) {
	home, _, err := c.Home(ctx)
	if err != nil {
		return 0, fmt.Errorf("publish record: %w: %w", ErrNoSupernode, err)
	}
	now := time.Now()
	c.mu.Lock()
	// Time makes the number grow across restarts too.
	c.sequence = max(c.sequence+1, uint64(now.UnixMilli()))
	sequence := c.sequence
	c.mu.Unlock()
	signed, err := Sign(c.Keys, c.Cert, sequence, now, home, c.Reach())
	if err != nil {
		return 0, fmt.Errorf("publish record: %w", err)
	}
	var answer publishAnswer
	if err := c.ask(ctx, methodPublish, signedRequest{Record: signed}, &answer); err != nil {
		return 0, fmt.Errorf("publish record: %w", err)
	}
	return answer.Stored, nil
}

// Find asks for the newest record of a user: first the own supernode for
// those responsible for the name, then these over UDP, all at once; or, where
// UDP is blocked, all through the own supernode. It returns ErrNotFound where
// those that answered know nothing.
func (c *Client) Find(ctx context.Context, name string) (*Record, error) {
	if err := identity.CheckName(name); err != nil {
		return nil, fmt.Errorf("find %.80q: %w", name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Profile.AnswerTimeout,
		fmt.Errorf("no answer in %v", c.Profile.AnswerTimeout))
	defer cancel()
	for _, round := range []struct{ skip, want int }{
		{0, c.Profile.Asked}, {c.Profile.Asked, c.Profile.AskedMore},
	} {
		if round.want == 0 {
			continue
		}
		found, err := c.query(ctx, name, round.skip, round.want)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("find %s: %w", name, ErrNotFound)
}

// query asks want supernodes after the first skip ones for a record; nil if
// none of them knows it. Where nothing is answered over UDP, although it was at
// login, the own supernode asks instead.
func (c *Client) query(ctx context.Context, name string, skip, want int) (*Record, error) {
	request := nameRequest{Name: name, Want: skip + want}
	var found newest
	overUDP := errors.New("UDP is blocked")
	if c.Reach().UDP {
		overUDP = c.queryOverUDP(ctx, request, skip, &found)
		if errors.Is(overUDP, ErrNoSupernode) {
			return nil, overUDP
		}
	}
	if overUDP != nil {
		var answer recordAnswer
		if err := c.ask(ctx, methodQuery, request, &answer); err != nil {
			return nil, err
		}
		found.offer(answer, c.Roots)
	}
	if found.record != nil && membership.Normal(found.record.Name()) != membership.Normal(name) {
		return nil, fmt.Errorf("%w: it is of %s", ErrRecord, found.record.Name())
	}
	return found.record, nil
}

// queryOverUDP asks the supernodes themselves. It fails if none answers.
func (c *Client) queryOverUDP(ctx context.Context, request nameRequest, skip int, found *newest) error {
	var who supernodesAnswer
	if err := c.ask(ctx, methodResponsible, request, &who); err != nil {
		return err
	}
	if len(who.List) <= skip {
		return nil
	}
	bound := 3 * c.Profile.UDPAnswer
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	answered, err := each(ctx, c.Profile.UDPAnswer, who.List[skip:], func(ctx context.Context, to Supernode) error {
		key, err := to.SealKey()
		if err != nil {
			return err
		}
		var answer recordAnswer
		if err := c.Socket.Request(ctx, to.Addr, key, kindQuery, request, &answer); err != nil {
			return err
		}
		found.offer(answer, c.Roots)
		return nil
	})
	if answered == 0 {
		c.Log.Info("supernodes do not answer over UDP", "error", err)
		return err
	}
	return nil
}

// Locate asks a user's supernode over UDP where the user is seen now, for which
// it asks the user, and tells it where this client is.
func (c *Client) Locate(ctx context.Context, r *Record) (netip.AddrPort, error) {
	key, err := r.Supernode.SealKey()
	if err != nil {
		return netip.AddrPort{}, err
	}
	request := locateRequest{Name: r.Name(), From: c.Reach().External}
	var answer locateAnswer
	if err := c.Socket.Request(ctx, r.Supernode.Addr, key, kindLocate, request, &answer); err != nil {
		return netip.AddrPort{}, fmt.Errorf("locate %s: %w", r.Name(), err)
	}
	switch {
	case !answer.Online:
		return netip.AddrPort{}, fmt.Errorf("locate %s: not logged in at %s", r.Name(), r.Supernode.Name)
	case !answer.External.IsValid():
		return netip.AddrPort{}, fmt.Errorf("locate %s: no UDP there", r.Name())
	}
	return answer.External, nil
}

// Knock has a user's supernode tell the user that this client sent a datagram
// to it, so that it sends one back.
func (c *Client) Knock(ctx context.Context, r *Record, session Session) error {
	key, err := r.Supernode.SealKey()
	if err != nil {
		return err
	}
	request := knockRequest{Name: r.Name(), Session: session, From: c.Reach().External}
	var answer knockAnswer
	if err := c.Socket.Request(ctx, r.Supernode.Addr, key, kindKnock, request, &answer); err != nil {
		return fmt.Errorf("knock for %s: %w", r.Name(), err)
	}
	if !answer.Passed {
		return fmt.Errorf("knock for %s: its supernode could not pass it on", r.Name())
	}
	return nil
}

// Introduce has a user told of this client through both supernodes, and
// returns the relays that were chosen, if the introduction is Through some;
// supernodes by the names in exclude are none of them.
func (c *Client) Introduce(ctx context.Context, r *Record, kind Kind, session Session, purpose string, relays int, exclude ...string) ([]Place, error) {
	reach := c.Reach()
	request := introduceRequest{At: r.Supernode, Relays: relays, Exclude: exclude, Introduction: Introduction{
		Kind: kind, Session: session, Purpose: purpose, Callee: r.Name(), Cert: c.Cert.DER,
		UDP: reach.External, TCP: reach.Listen,
	}}
	var answer introduceAnswer
	if err := c.ask(ctx, methodIntroduce, request, &answer); err != nil {
		return nil, fmt.Errorf("introduce to %s: %w", r.Name(), err)
	}
	if kind == Through && (len(answer.Places) == 0 || len(answer.Places) > maxPlaces) {
		return nil, fmt.Errorf("introduce to %s: %d relays were chosen", r.Name(), len(answer.Places))
	}
	return answer.Places, nil
}

// Introduced reads an introduction that came over the link to the own
// supernode. handled is false for another method. The caller's certificate is
// verified; anything else in it is the caller's word.
func (c *Client) Introduced(method string, body []byte) (in *Introduction, from *identity.Certificate, handled bool, err error) {
	if method != MethodIntroduced {
		return nil, nil, false, nil
	}
	in = new(Introduction)
	if err := wire.Unmarshal(body, in); err != nil {
		return nil, nil, true, err
	}
	cert, err := identity.Parse(in.Cert)
	if err != nil {
		return nil, nil, true, fmt.Errorf("introduction: %w", err)
	}
	if err := c.Roots.Verify(cert, time.Now()); err != nil {
		return nil, nil, true, fmt.Errorf("introduction: %w", err)
	}
	switch {
	case cert.Role != identity.RoleClient || membership.Normal(in.Callee) != membership.Normal(c.Cert.Name) || cert.Name == c.Cert.Name:
		return nil, nil, true, fmt.Errorf("introduction of %s to %s makes no sense here", cert.Name, in.Callee)
	case in.Kind == Open && !network.Unicast(in.UDP), in.Kind == Dial && !network.Unicast(in.TCP),
		in.Kind == Through && (len(in.Places) == 0 || len(in.Places) > maxPlaces),
		in.Kind < Open || in.Kind > Through:
		return nil, nil, true, fmt.Errorf("introduction of %s of kind %d says not how", cert.Name, in.Kind)
	}
	return in, cert, true, nil
}
