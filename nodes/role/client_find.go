package role

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gauntlet/nodes/hostcache"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
	"gauntlet/nodes/wire"
)

// found is what the search for a supernode brought.
type found struct {
	udp   bool
	list  []membership.Supernode
	sent  []netip.AddrPort // where datagrams went
	asked []membership.ID  // whose addresses these are
	home  *home
}

// errVoid is for a client that knows no supernode (papers.md L3).
var errVoid = errors.New("the host cache is void and there are no default supernodes")

func shuffled(list []membership.Supernode) []membership.Supernode {
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// findSupernode gathers the list of supernodes, over UDP or else over TCP, and
// opens the link to the own one. The whole is tried several times.
func (n *client) findSupernode(ctx context.Context, name string) (*found, error) {
	var err error
	for round := 1; ; round++ {
		var f *found
		if f, err = n.findOnce(ctx, name); err == nil {
			return f, nil
		}
		if errors.Is(err, errVoid) || round >= n.profile.LoginRounds || ctx.Err() != nil {
			return nil, err
		}
		n.log.Info("no supernode found, trying again", "round", round, "error", err)
		select {
		case <-time.After(n.profile.LoginPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (n *client) findOnce(ctx context.Context, name string) (*found, error) {
	n.mu.Lock()
	known := n.cache.Supernodes()
	n.mu.Unlock()
	if len(known) == 0 {
		return nil, errVoid
	}
	f := &found{}
	n.askOverUDP(ctx, f, shuffled(known))
	var err error
	if f.udp {
		f.home, f.list, err = n.settleAt(ctx, f.list, name)
		for _, s := range f.list { // whole now: an answer over UDP has but a part of it
			if slices.Contains(f.sent, s.Addr) {
				f.asked = append(f.asked, s.ID)
			}
		}
	} else {
		n.log.Info("UDP is not answered, gathering supernodes over TCP")
		f.home, f.list, err = n.gatherOverTCP(ctx, shuffled(known), name)
	}
	if err != nil {
		return nil, err
	}
	n.remember(f.list)
	n.log.Info("own supernode", "addr", f.home.node.Addr, "known", len(f.list))
	return f, nil
}

// askOverUDP asks a few supernodes for the list, then a few more. The first
// answer of a round counts.
func (n *client) askOverUDP(ctx context.Context, f *found, known []membership.Supernode) {
	for _, count := range []int{n.profile.Bootstrap, n.profile.BootstrapMore} {
		asked := known[:min(count, len(known))]
		known = known[len(asked):]
		if len(asked) == 0 {
			return
		}
		rctx, cancel := context.WithTimeoutCause(ctx, n.profile.UDPAnswer, fmt.Errorf("no answer in %s", n.profile.UDPAnswer))
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, s := range asked {
			f.sent = append(f.sent, s.Addr)
			wg.Go(func() {
				list, err := n.askList(rctx, s)
				if err != nil {
					n.log.Debug("supernode not asked", "addr", s.Addr, "error", err)
					return
				}
				mu.Lock()
				f.list, f.udp = append(f.list, list...), true
				mu.Unlock()
				cancel()
			})
		}
		wg.Wait()
		cancel()
		if f.udp {
			f.list = unique(f.list)
			n.log.Info("supernodes listed over UDP", "count", len(f.list))
			return
		}
	}
}

func unique(list []membership.Supernode) []membership.Supernode {
	seen := map[membership.ID]bool{}
	return slices.DeleteFunc(list, func(s membership.Supernode) bool {
		if seen[s.ID] {
			return true
		}
		seen[s.ID] = true
		return false
	})
}

// askList asks one supernode for the list.
func (n *client) askList(ctx context.Context, s membership.Supernode) ([]membership.Supernode, error) {
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	var a listAnswer
	if err := n.udp.Request(ctx, s.Addr, key, wire.KindList, listRequest{}, &a); err != nil {
		return nil, err
	}
	if len(a.Supernodes) == 0 {
		return nil, fmt.Errorf("supernode %s knows no supernodes", s.Addr)
	}
	return checked(a.Supernodes)
}

// checked refuses a list with an entry that could not be used.
func checked(list []membership.Supernode) ([]membership.Supernode, error) {
	for _, s := range list {
		if !s.Addr.IsValid() || s.Addr.Port() == 0 {
			return nil, fmt.Errorf("supernode at address %s", s.Addr)
		}
		if _, err := s.Key(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// eligible are the supernodes that may be the own one of a user: not one of
// those that keep the user's record, unless there are no others.
func (n *client) eligible(list []membership.Supernode, name string) []membership.Supernode {
	keep := membership.Responsible(list, name, n.profile.Responsible)
	rest := slices.DeleteFunc(slices.Clone(list), func(s membership.Supernode) bool {
		return membership.Contains(keep, s.ID)
	})
	if len(rest) == 0 {
		rest = slices.Clone(list)
	}
	return shuffled(rest)
}

// maxHomes is how many supernodes are tried as the own one.
const maxHomes = 6

// settleAt opens the link to one of the eligible supernodes and has it
// complete the list; if that shows that it is not eligible, another is taken.
func (n *client) settleAt(ctx context.Context, list []membership.Supernode, name string) (*home, []membership.Supernode, error) {
	err := errors.New("no supernode is known")
	for i, s := range n.eligible(list, name) {
		if i == maxHomes {
			break
		}
		var h *home
		if h, err = n.open(ctx, s); err != nil {
			n.log.Info("supernode not reached", "addr", s.Addr, "error", err)
			continue
		}
		var all []membership.Supernode
		if all, err = n.complete(ctx, h); err != nil {
			h.close()
			continue
		}
		if membership.Contains(membership.Responsible(all, name, n.profile.Responsible), h.node.ID) &&
			len(all) > n.profile.Responsible {
			h.close()
			err = fmt.Errorf("supernode %s keeps the record of %s", s.Addr, name)
			continue
		}
		return h, all, nil
	}
	return nil, nil, fmt.Errorf("no supernode answers: %w", err)
}

// gatherOverTCP opens links to several supernodes, has each complete the list,
// and keeps one of them (P-L1).
func (n *client) gatherOverTCP(ctx context.Context, known []membership.Supernode, name string) (*home, []membership.Supernode, error) {
	var homes []*home
	var all []membership.Supernode
	last := errors.New("no supernode is known")
	for len(known) > 0 && len(homes) < n.profile.TCPProbes && ctx.Err() == nil {
		batch := known[:min(n.profile.TCPProbes-len(homes), len(known))]
		known = known[len(batch):]
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, s := range batch {
			wg.Go(func() {
				h, err := n.open(ctx, s)
				var list []membership.Supernode
				if err == nil {
					if list, err = n.complete(ctx, h); err != nil {
						h.close()
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					last = err
					return
				}
				homes, all = append(homes, h), append(all, list...)
			})
		}
		wg.Wait()
	}
	if len(homes) == 0 {
		return nil, nil, fmt.Errorf("no supernode answers: %w", last)
	}
	all = unique(all)
	rest := n.eligible(all, name)
	var kept *home
	for _, h := range homes {
		if kept == nil && membership.Contains(rest, h.node.ID) {
			kept = h
			continue
		}
		h.close()
	}
	if kept != nil {
		return kept, all, nil
	}
	return n.settleAt(ctx, all, name)
}

// complete asks a supernode over its link for all supernodes.
func (n *client) complete(ctx context.Context, h *home) ([]membership.Supernode, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.AnswerTimeout, errors.New("no answer"))
	defer cancel()
	var a supernodesAnswer
	if err := h.link.Call(ctx, methodSupernodes, nil, &a); err != nil {
		return nil, err
	}
	n.log.Info("on line", "supernodes", len(a.Supernodes), "users", a.Online)
	return checked(a.Supernodes)
}

// remember enters supernodes into the host cache.
func (n *client) remember(list []membership.Supernode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, s := range list {
		n.cache.Add(hostcache.Entry{Supernode: s, LastSeen: now})
	}
}

// open opens the link to a supernode.
func (n *client) open(ctx context.Context, s membership.Supernode) (*home, error) {
	t, err := n.dialSupernode(ctx, s, identity.ALPNLink)
	if err != nil {
		return nil, err
	}
	cert := identity.PeerCertificate(t.ConnectionState(), n.peers.roots)
	c := link.New(n.ctx, t, cert, n.handle)
	return &home{node: membership.SupernodeOf(cert), cert: cert, link: c}, nil
}

// close ends the link and waits for it.
func (h *home) close() {
	h.link.Close()
	h.link.Wait()
}

// dialSupernode opens a TLS connection to a supernode: at its own port and,
// where that fails, at those that strict firewalls let through. The
// certificate must be of the supernode at that address.
func (n *client) dialSupernode(ctx context.Context, s membership.Supernode, alpn string) (*tls.Conn, error) {
	var errs []error
	for _, port := range append([]uint16{s.Addr.Port()}, n.profile.FallbackPorts...) {
		t, err := n.dialPort(ctx, s, netip.AddrPortFrom(s.Addr.Addr(), port), alpn)
		if err == nil {
			return t, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (n *client) dialPort(ctx context.Context, s membership.Supernode, to netip.AddrPort, alpn string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.profile.ConnectTimeout,
		fmt.Errorf("no answer in %s", n.profile.ConnectTimeout))
	defer cancel()
	nc, err := n.nw.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	var cert *identity.Certificate
	if u := n.current(); u != nil && alpn != identity.ALPNLogin {
		cert = u.cert
	}
	t := tls.Client(nc, identity.ClientTLS(n.keys, cert, n.peers.roots, alpn, identity.RoleSupernode))
	if err := t.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", to, err)
	}
	shown := identity.PeerCertificate(t.ConnectionState(), n.peers.roots)
	if shown == nil || shown.Addr != s.Addr {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: the certificate is another supernode's", to)
	}
	return t, nil
}
