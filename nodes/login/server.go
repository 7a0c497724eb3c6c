package login

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/network"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

const (
	// maxConnections bounds the connections that are served at once.
	maxConnections = 128
	// connectionTime bounds one connection.
	connectionTime = 30 * time.Second
	// Attempts to log in, per second and at once: of one address (a supernode
	// that relays stands for many users), and for one user.
	sourceRate, sourceBurst = 20, 60
	userRate, userBurst     = 1, 10
	// maxLimited bounds the addresses and users that are counted.
	maxLimited = 8192
)

// Config is what a login server needs.
type Config struct {
	Authority  *identity.Authority
	Keys       *identity.Keys
	Cert       *identity.Certificate // the server's own
	Roots      identity.Roots
	Accounts   *Accounts
	Supernodes []Supernode
	Profile    *profile.Profile
	Log        *slog.Logger
}

// Server is the login server.
type Server struct {
	cfg    Config
	room   link.Admit
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	limits *attempts
}

// NewServer makes a login server that lasts until Close.
func NewServer(ctx context.Context, cfg Config) *Server {
	s := &Server{cfg: cfg, room: link.AtMost(maxConnections), limits: &attempts{by: map[string]*rate.Limiter{}}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// Serve accepts connections on l until Close.
func (s *Server) Serve(l net.Listener) {
	link.Accept(s.ctx, &s.wg, l, s.cfg.Log, s.room, s.connection)
}

// Close ends the server and waits for its goroutines. Accounts stay open.
func (s *Server) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

// connection serves one client.
func (s *Server) connection(nc net.Conn) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, connectionTime, errors.New("connection open for too long"))
	defer cancel()
	config := identity.ServerTLS(s.cfg.Keys, s.cfg.Cert, s.cfg.Roots, identity.Possession, []string{identity.ALPNLogin})
	t := tls.Server(nc, config)
	from := network.AddrPort(nc.RemoteAddr())
	c, err := link.Handshaken(ctx, ctx, t, s.cfg.Roots, func(ctx context.Context, c *link.Conn, method string, body []byte) (any, error) {
		switch method {
		case methodLogin:
			return s.login(ctx, c, from.Addr(), body)
		case methodEnrol:
			var shown ed25519.PublicKey
			if certs := t.ConnectionState().PeerCertificates; len(certs) == 1 {
				shown, _ = certs[0].PublicKey.(ed25519.PublicKey)
			}
			return s.enrol(shown, body)
		}
		return nil, link.ErrUnknown
	})
	if err != nil {
		s.cfg.Log.Debug("connection refused", "from", from, "error", err)
		return
	}
	c.Wait()
}

// login serves methodLogin.
func (s *Server) login(ctx context.Context, c *link.Conn, from netip.Addr, body []byte) (*answer, error) {
	if !s.limits.allow("address "+from.String(), sourceRate, sourceBurst) {
		return nil, link.Refused("too many attempts from %s", from)
	}
	var r request
	if err := wire.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	exporter, err := c.Export(exporterLabel, nil, exporterSize)
	if err != nil {
		return nil, err
	}
	creds, subject, err := r.open(s.cfg.Authority, exporter)
	if err != nil {
		s.cfg.Log.Warn("login refused", "from", from, "error", err)
		return nil, errors.New("the credentials can't be read")
	}
	if err := identity.CheckName(creds.User); err != nil {
		return nil, ErrCredentials
	}
	if !s.limits.allow("user "+membership.Normal(creds.User), userRate, userBurst) {
		return nil, link.Refused("too many attempts for this user")
	}
	if err := s.cfg.Accounts.Check(ctx, creds.User, creds.Password); err != nil {
		s.cfg.Log.Warn("login refused", "user", creds.User, "from", from, "error", err)
		return nil, err
	}
	cert, err := s.cfg.Authority.Issue(*subject, s.cfg.Profile.SessionValid)
	if err != nil {
		return nil, fmt.Errorf("log in %s: %w", creds.User, err)
	}
	s.cfg.Log.Info("user logged in", "user", creds.User, "from", from, "payload", len(creds.Payload))
	return &answer{Cert: cert.DER}, nil
}

// attempts limits how often something is tried.
type attempts struct {
	mu sync.Mutex
	by map[string]*rate.Limiter
}

func (a *attempts) allow(key string, perSecond float64, burst int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.by[key]
	if l == nil {
		if len(a.by) >= maxLimited {
			clear(a.by)
		}
		l = rate.NewLimiter(rate.Limit(perSecond), burst)
		a.by[key] = l
	}
	return l.AllowN(time.Now(), 1)
}
