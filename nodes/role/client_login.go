package role

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"crypto/rsa"
	"crypto/tls"

	"gauntlet/nodes/control"
	"gauntlet/nodes/hostcache"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/login"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/stun"
	"gauntlet/nodes/update"
	"gauntlet/nodes/wire"
)

// hookLogin offers login.
func (n *client) hookLogin() { n.offer(control.MethodLogin, control.Do(n.login)) }

// login joins the overlay as a user, step by step as the seed has it (P-L0).
func (n *client) login(ctx context.Context, p control.LoginParams) (*control.LoginResult, error) {
	if err := n.claim(); err != nil {
		return nil, err
	}
	defer n.release()
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.LoginTimeout,
		fmt.Errorf("not done in %s", n.profile.LoginTimeout))
	defer cancel()
	stop := context.AfterFunc(n.ctx, cancel)
	defer stop()

	n.checkUpdate(ctx)
	found, err := n.findSupernode(ctx, p.User)
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	u, path, err := n.authenticate(ctx, p, found)
	if err != nil {
		found.home.close()
		return nil, fmt.Errorf("login: %w", err)
	}
	if err := n.settle(ctx, u, found); err != nil {
		u.cancel()
		found.home.close()
		n.udp.SetCertificate(nil)
		return nil, fmt.Errorf("login: %w", err)
	}
	n.mu.Lock()
	n.cache.Runs++
	err = n.cache.Save(n.params.Dir)
	n.mu.Unlock()
	if err != nil {
		n.log.Warn("host cache not saved", "error", err)
	}
	r := u.reached()
	n.log.Info("logged in", "user", u.name, "path", path.Path, "udp", r.box.UDP, "mapping", r.box.Mapping,
		"filtering", r.box.Filtering, "reached_udp", r.udp, "reached_tcp", r.tcp)
	return &control.LoginResult{Path: path, Middlebox: &r.box}, nil
}

// claim lets one login through at a time, of a client that has no user.
func (n *client) claim() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.udp == nil:
		return errors.New("login: the node is not started")
	case n.user != nil:
		return fmt.Errorf("login: %s is logged in already", n.user.name)
	case n.busy:
		return errors.New("login: another login is under way")
	}
	n.busy = true
	return nil
}

func (n *client) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy = false
}

// checkUpdate asks the update server. Its answer decides nothing: a client
// that can't reach it goes on.
func (n *client) checkUpdate(ctx context.Context) {
	if n.peers.update == nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.ConnectTimeout, errors.New("no answer"))
	defer cancel()
	n.mu.Lock()
	first := n.cache.Runs == 0
	n.mu.Unlock()
	version, err := update.Check(ctx, n.nw, n.peers.update.Address, first)
	if err != nil {
		n.log.Warn("update check failed", "error", err)
		return
	}
	n.log.Info("update check", "latest", version)
}

// sessionRSA is the RSA key pair of one login. It is used once.
func (n *client) sessionRSA(ctx context.Context) (*rsa.PrivateKey, error) {
	select {
	case <-n.rsaReady:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	k, err := n.rsa, n.rsaErr
	n.rsa, n.rsaErr = nil, nil
	if k == nil && err == nil {
		return identity.NewRSA()
	}
	return k, err
}

// authenticate shows the credentials to the login server, directly or, where
// it is out of reach, through a supernode.
func (n *client) authenticate(ctx context.Context, p control.LoginParams, found *found) (*user, *control.Path, error) {
	key, err := n.sessionRSA(ctx)
	if err != nil {
		return nil, nil, err
	}
	who := login.User{Name: p.User, Password: p.Password, Payload: p.Payload}
	path := &control.Path{Path: "direct", Legs: []control.Leg{{Transport: "tcp"}}}
	nc, err := n.dialLogin(ctx)
	if err != nil {
		n.log.Info("login server out of reach, going through a supernode", "error", err)
		path = &control.Path{Path: "relayed", Relays: 1, Carrying: 1, Hops: 1,
			Legs: []control.Leg{{Transport: "tcp"}, {Transport: "tcp"}}}
		if nc, err = n.dialLoginRelay(ctx, found); err != nil {
			return nil, nil, err
		}
	}
	// Hashing passwords takes a busy server longer than any other answer.
	actx, cancel := context.WithTimeoutCause(ctx, n.profile.LoginTimeout/2, errors.New("the login server doesn't answer"))
	defer cancel()
	cert, err := login.Exchange(actx, nc, n.keys, key, n.peers.roots, who)
	if err != nil {
		return nil, nil, err
	}
	n.log.Info("certificate issued", "user", cert.Name, "until", cert.NotAfter.Format(time.RFC3339))
	u := &user{name: cert.Name, cert: cert, udp: found.udp, moved: make(chan struct{})}
	u.ctx, u.cancel = context.WithCancel(n.ctx)
	return u, path, nil
}

func (n *client) dialLogin(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.ConnectTimeout,
		fmt.Errorf("no answer in %s", n.profile.ConnectTimeout))
	defer cancel()
	return n.nw.Dial(ctx, n.peers.login.Address)
}

// maxLoginRelays is how many supernodes are tried as relay.
const maxLoginRelays = 4

// dialLoginRelay opens a connection to the login server through a supernode
// drawn at random that is not the own one.
func (n *client) dialLoginRelay(ctx context.Context, found *found) (net.Conn, error) {
	err := errors.New("no supernode to relay the login is known")
	tried := 0
	for _, s := range shuffled(found.list) {
		if s.Addr == found.home.node.Addr {
			continue
		}
		if tried++; tried > maxLoginRelays {
			break
		}
		var t *tls.Conn
		if t, err = n.dialSupernode(ctx, s, identity.ALPNLogin); err == nil {
			n.log.Info("login relayed", "supernode", s.Addr)
			return t, nil
		}
	}
	return nil, fmt.Errorf("login server out of reach, and its relay too: %w", err)
}

// settle is what follows the certificate: the link becomes the user's, and the
// tests run.
func (n *client) settle(ctx context.Context, u *user, found *found) error {
	n.udp.SetCertificate(u.cert)
	if err := n.attach(ctx, u, found.home); err != nil {
		return err
	}
	n.mu.Lock()
	n.user = u // from here on probes are answered
	n.mu.Unlock()
	err := n.test(ctx, u, found)
	for _, f := range n.atLogin {
		if err != nil {
			break
		}
		err = f(ctx, u)
	}
	if err != nil {
		n.mu.Lock()
		n.user = nil
		n.mu.Unlock()
		return err
	}
	n.wg.Go(func() { n.stay(u) })
	return nil
}

// test finds out which box the client is behind and who gets in, both at once.
func (n *client) test(ctx context.Context, u *user, found *found) error {
	var wg sync.WaitGroup
	var probe probeAnswer
	var box stun.Result
	var probeErr, boxErr error
	exclude := append([]membership.ID{found.home.node.ID}, found.asked...)
	second := n.secondServer(found)
	if u.udp && second.Addr.IsValid() {
		exclude = append(exclude, second.ID)
	}
	wg.Go(func() {
		actx, cancel := context.WithTimeoutCause(ctx, n.profile.AnswerTimeout, errors.New("no verdict"))
		defer cancel()
		probeErr = found.home.link.Call(actx, methodProbe, probeRequest{UDP: u.udp, Exclude: exclude}, &probe)
	})
	if u.udp {
		wg.Go(func() {
			if !second.Addr.IsValid() {
				boxErr = errors.New("there is no second supernode to ask")
				return
			}
			box, boxErr = stun.Detect(ctx, stun.Config{Socket: n.udp, Local: n.nw.Addrs(),
				First: found.home.node.Addr, Second: second.Addr,
				Answer: n.profile.UDPAnswer + n.profile.STUNWait, Silence: n.profile.STUNWait,
				Elsewhere: func(ctx context.Context, id stun.ID, otherAddress bool) error {
					return found.home.link.Call(ctx, methodElsewhere,
						elsewhereRequest{ID: id, OtherAddress: otherAddress, Exclude: exclude}, nil)
				}})
		})
	}
	wg.Wait()
	if probeErr != nil {
		n.log.Warn("not probed", "error", probeErr)
	}
	r := reach{udp: probe.UDP, tcp: probe.TCP, box: control.Middlebox{UDP: u.udp}}
	if boxErr != nil {
		n.log.Warn("middlebox not found out", "error", boxErr)
	} else {
		r.box.Mapping, r.box.Filtering = box.Mapping, box.Filtering
	}
	u.mu.Lock()
	u.reach = r
	u.mu.Unlock()
	n.mu.Lock()
	n.cache.Middlebox = hostcache.Middlebox{UDP: u.udp, Mapping: box.Mapping, Filtering: box.Filtering,
		External: box.External, Local: n.addr, Tested: time.Now()}
	n.mu.Unlock()
	return nil
}

// secondServer is a supernode at another IP address than the own one, for the
// test of mapping: one that was asked already, if there is one.
func (n *client) secondServer(found *found) membership.Supernode {
	var second membership.Supernode
	for _, s := range found.list {
		if s.Addr.Addr() == found.home.node.Addr.Addr() {
			continue
		}
		for _, id := range found.asked {
			if s.ID == id {
				return s
			}
		}
		second = s
	}
	return second
}

// here tells the own supernode the UDP address of the client, by sending from
// it, and takes note of how it is seen.
func (n *client) here(ctx context.Context, u *user, h *home) error {
	key, err := h.node.Key()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.UDPAnswer+n.profile.STUNWait, errors.New("no answer"))
	defer cancel()
	var a hereAnswer
	if err := n.udp.Request(ctx, h.node.Addr, key, wire.KindHere, hereRequest{}, &a); err != nil {
		return err
	}
	u.setExternal(a.Observed)
	return nil
}

// observe asks the own supernode by STUN how it sees the UDP socket. Where the
// box has moved it, because the binding had expired, the supernode is told.
func (n *client) observe(ctx context.Context, u *user) (netip.AddrPort, error) {
	h, err := u.home(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.UDPAnswer+n.profile.STUNWait, errors.New("no answer"))
	defer cancel()
	seen, err := stun.Binding(ctx, n.udp, h.node.Addr)
	if err != nil {
		return seen, err
	}
	if before := u.externalAddr(); before != seen {
		n.log.Info("seen at another UDP address", "now", seen, "before", before)
		u.setExternal(seen)
		n.wg.Go(func() {
			if err := n.here(u.ctx, u, h); err != nil && u.ctx.Err() == nil {
				n.log.Warn("own supernode not told of the UDP address", "error", err)
			}
		})
	}
	return seen, nil
}

func (u *user) setExternal(a netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.external = a
}

// externalAddr is the UDP address as the own supernode sees it, the zero value
// where UDP is blocked.
func (u *user) externalAddr() netip.AddrPort {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.external
}

// reached is what the tests of login found.
func (u *user) reached() reach {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reach
}
