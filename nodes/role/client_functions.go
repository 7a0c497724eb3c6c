package role

import (
	"context"
	"crypto/tls"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/call"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/freedom"
	reaching "gauntlet/nodes/directory/reach"
	"gauntlet/nodes/directory/search"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/stun"
)

// functions are what a logged-in user does with others.
type functions struct {
	directory *directory.Client
	reach     *reaching.Reacher
	free      *freedom.Service
	search    *search.Service
	call      *call.Service
}

// functionsOf holds the functions of the user who is logged in.
type functionsOf struct {
	mu   sync.Mutex
	user *user
	all  *functions
}

func (f *functionsOf) get() *functions {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// hookFunctions sets up search and call when a user logs in, and has the
// user's record published, then and whenever the own supernode changes.
func (n *client) hookFunctions() {
	n.atLogin = append(n.atLogin, func(ctx context.Context, u *user) error { return n.bringUp(ctx, u) })
	n.atClose = append(n.atClose, func() {
		if f := n.held.get(); f != nil {
			f.call.Close()
			f.search.Close()
			f.free.Close()
			f.reach.Close()
		}
	})
	n.methods[directory.MethodIntroduced] = func(_ context.Context, _ *link.Conn, body []byte) (any, error) {
		f := n.held.get()
		if f == nil {
			return nil, link.ErrUnknown
		}
		in, from, _, err := f.directory.Introduced(directory.MethodIntroduced, body)
		if err != nil {
			return nil, err
		}
		n.log.Info("told of a user", "user", from.Name, "kind", in.Kind, "relays", len(in.Places))
		return struct{}{}, f.reach.Introduced(in, from)
	}
	n.methods[directory.MethodWhere] = func(ctx context.Context, _ *link.Conn, _ []byte) (any, error) {
		f := n.held.get()
		if f == nil {
			return nil, link.ErrUnknown
		}
		return f.directory.Where(ctx), nil
	}
	for _, name := range []string{identity.ALPNSearch, identity.ALPNCall} {
		n.byALPN[name] = func(_ context.Context, c *tls.Conn, _ *identity.Certificate) {
			f := n.held.get()
			if f == nil {
				c.Close()
				return
			}
			if err := f.reach.Accept(c); err != nil {
				n.log.Info("connection refused", "from", c.RemoteAddr(), "error", err)
			}
		}
	}
	n.hookSearch()
	n.hookCall()
}

// bringUp makes the functions of a user who logged in, and publishes the
// record.
func (n *client) bringUp(ctx context.Context, u *user) error {
	held := &n.held
	held.mu.Lock()
	if held.user != u {
		held.user, held.all = u, n.newFunctions(u)
		d := held.all.directory
		n.wg.Go(func() { n.refresh(u, d) })
	}
	d := held.all.directory
	held.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, n.profile.AnswerTimeout)
	defer cancel()
	stored, err := d.Publish(ctx)
	if err != nil {
		return err
	}
	n.log.Info("record published", "supernodes", stored)
	return nil
}

func (n *client) newFunctions(u *user) *functions {
	d := &directory.Client{
		Network: n.nw, Profile: n.profile, Keys: n.keys, Cert: u.cert, Roots: n.peers.roots, Socket: n.udp, Log: n.log,
		Home: func(ctx context.Context) (directory.Supernode, *link.Conn, error) {
			h, err := u.home(ctx)
			if err != nil {
				return directory.Supernode{}, nil, err
			}
			return directory.Supernode{Name: h.cert.Name, Addr: h.node.Addr, Seal: h.node.Seal}, h.link, nil
		},
		Reach: func() directory.Reach {
			r := u.reached()
			return directory.Reach{
				UDP: r.box.UDP, External: u.externalAddr(), PublicUDP: r.udp, PublicTCP: r.tcp,
				Listen: netip.AddrPortFrom(n.addr, n.udp.LocalAddr().Port()),
			}
		},
		Observe: func(ctx context.Context) (netip.AddrPort, error) { return n.observe(ctx, u) },
		Box: func() (string, string) {
			box := u.reached().box
			return box.Mapping, box.Filtering
		},
		Predict: func() bool { return n.settings.Predict && u.reached().box.Mapping == stun.AddressPortDependent },
		Servers: func() []netip.AddrPort {
			n.mu.Lock()
			defer n.mu.Unlock()
			var list []netip.AddrPort
			for _, s := range shuffled(n.cache.Supernodes()) {
				list = append(list, s.Addr)
			}
			return list
		},
	}
	f := &functions{directory: d, reach: reaching.New(u.ctx, d), free: freedom.New(d)}
	f.search = search.New(u.ctx, d, f.reach, f.free, func(from *identity.Certificate, greeting []byte) error {
		n.log.Info("user accepted", "user", from.Name, "greeting", len(greeting))
		return nil
	})
	f.call = call.New(u.ctx, call.Config{Client: d, Reach: f.reach, Free: f.free})
	return f
}

// refresh publishes the record again and again, so that the user is found for
// as long as it is on line.
func (n *client) refresh(u *user, d *directory.Client) {
	ticker := time.NewTicker(n.profile.RecordRefresh)
	defer ticker.Stop()
	for {
		select {
		case <-u.ctx.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(u.ctx, n.profile.AnswerTimeout)
		if _, err := d.Publish(ctx); err != nil && u.ctx.Err() == nil {
			n.log.Warn("record not refreshed", "error", err)
		}
		cancel()
	}
}
