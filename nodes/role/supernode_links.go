package role

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
)

// links are a supernode's links to others, opened when first needed.
type links struct {
	n  *supernode
	mu sync.Mutex
	by map[membership.ID]*pendingLink
	wg sync.WaitGroup
}

// pendingLink is a link or the attempt to open it.
type pendingLink struct {
	ready chan struct{} // closed when c or err is set
	c     *link.Conn
	err   error
}

func newLinks(n *supernode) *links {
	return &links{n: n, by: map[membership.ID]*pendingLink{}}
}

// to is the link to another supernode, opened if there is none.
func (l *links) to(ctx context.Context, id membership.ID) (*link.Conn, error) {
	cert := l.n.members.Certificate(id)
	if cert == nil {
		return nil, fmt.Errorf("supernode %s is no member", id)
	}
	l.mu.Lock()
	if l.n.ctx.Err() != nil {
		l.mu.Unlock()
		return nil, errors.New("the node is stopped")
	}
	p := l.by[id]
	if p == nil {
		p = &pendingLink{ready: make(chan struct{})}
		l.by[id] = p
		l.wg.Go(func() { l.run(id, cert, p) })
	}
	l.mu.Unlock()
	select {
	case <-p.ready:
		return p.c, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("link to supernode %s: %w", cert.Addr, context.Cause(ctx))
	}
}

// run opens a link and keeps it in the table until it ends.
func (l *links) run(id membership.ID, cert *identity.Certificate, p *pendingLink) {
	ctx, cancel := context.WithTimeout(l.n.ctx, l.n.profile.ConnectTimeout)
	p.c, p.err = l.open(ctx, cert)
	cancel()
	if p.err != nil {
		l.remove(id, p)
	}
	close(p.ready)
	if p.err != nil {
		return
	}
	p.c.KeepAlive(l.n.profile.KeepAlive, l.n.profile.KeepAliveTimeout)
	<-p.c.Done()
	l.remove(id, p)
	p.c.Wait()
}

func (l *links) open(ctx context.Context, cert *identity.Certificate) (*link.Conn, error) {
	nc, err := l.n.nw.Dial(ctx, cert.Addr)
	if err != nil {
		return nil, err
	}
	t := tls.Client(nc, identity.ClientTLS(l.n.keys, l.n.cert, l.n.peers.roots, identity.ALPNLink, identity.RoleSupernode))
	c, err := link.Handshaken(ctx, l.n.ctx, t, l.n.peers.roots, l.n.handle)
	if err != nil {
		return nil, err
	}
	if peer := c.Peer(); peer == nil || peer.Hash() != cert.Hash() {
		c.Close()
		c.Wait()
		return nil, fmt.Errorf("%s shows another certificate than gossip did", cert.Addr)
	}
	return c, nil
}

func (l *links) remove(id membership.ID, p *pendingLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[id] == p {
		delete(l.by, id)
	}
}

// close waits for all links; the node's context has ended.
func (l *links) close() { l.wg.Wait() }
