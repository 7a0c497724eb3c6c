package role

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/login"
	"gauntlet/nodes/network"
)

// authorityValid is how long the authority's own certificate lasts.
const authorityValid = 10 * 365 * 24 * time.Hour

// loginNode is the login server.
type loginNode struct {
	node
	authority *identity.Authority
	public    identity.Public
	accounts  *login.Accounts
	server    *login.Server
}

func newLogin(ctx context.Context, nw network.Network, log *slog.Logger) *loginNode {
	n := new(loginNode)
	n.init(ctx, nw, log)
	return n
}

func (n *loginNode) Methods() control.Methods {
	return lifecycle(n.prepareLogin, n.start, n.Close)
}

func (n *loginNode) prepareLogin(_ context.Context, p control.PrepareParams) (*control.PrepareResult, error) {
	if err := n.prepare(p); err != nil {
		return nil, err
	}
	var err error
	if n.authority, err = identity.NewAuthority(time.Now, authorityValid); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if n.public, err = n.authority.Public(); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	public, err := json.Marshal(loginPublic{Address: netip.AddrPortFrom(n.addr, overlayPort), Keys: n.public})
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return &control.PrepareResult{Functions: []string{}, Accounts: true, Public: public}, nil
}

func (n *loginNode) start(ctx context.Context, p control.StartParams) (struct{}, error) {
	var none struct{}
	if err := n.begin(); err != nil {
		return none, err
	}
	peers, err := readPeers(p.Peers)
	if err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	roots, err := n.public.Roots()
	if err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	cert, err := n.authority.Issue(identity.Subject{Name: n.params.Name, Role: identity.RoleLogin,
		Sign: n.keys.Public(), Seal: n.keys.Seal.PublicKey()}, n.profile.SupernodeValid)
	if err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	if n.accounts, err = login.OpenAccounts(ctx, n.params.Dir); err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	for _, a := range p.Accounts {
		if err := n.accounts.Create(ctx, a.User, a.Password); err != nil {
			return none, fmt.Errorf("start: %w", err)
		}
	}
	cfg := login.Config{Authority: n.authority, Keys: n.keys, Cert: cert, Roots: roots,
		Accounts: n.accounts, Profile: n.profile, Log: n.log}
	for _, s := range peers.supernodes {
		cfg.Supernodes = append(cfg.Supernodes, login.Supernode{Name: s.name, Addr: s.addr, Sign: s.sign})
	}
	l, err := n.nw.Listen(ctx, netip.AddrPortFrom(n.addr, overlayPort))
	if err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	n.server = login.NewServer(n.ctx, cfg)
	n.server.Serve(l)
	n.log.Info("login server is up", "addr", l.Addr(), "accounts", len(p.Accounts), "supernodes", len(cfg.Supernodes))
	return none, nil
}

// Close ends the server and closes the database.
func (n *loginNode) Close() error {
	n.cancel()
	if n.server != nil {
		n.server.Close()
	}
	n.wg.Wait()
	if n.accounts != nil {
		return n.accounts.Close()
	}
	return nil
}
