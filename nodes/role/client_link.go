package role

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/link"
)

// handle serves the requests and notices of the own supernode.
func (n *client) handle(ctx context.Context, c *link.Conn, method string, body []byte) (any, error) {
	f := n.methods[method]
	if f == nil {
		return nil, link.ErrUnknown
	}
	return f(ctx, c, body)
}

// attach makes the link the user's, and lets the supernode know the UDP
// address.
func (n *client) attach(ctx context.Context, u *user, h *home) error {
	exporter, err := h.link.Export(attachLabel, nil, attachSize)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	r := attachRequest{Cert: u.cert.DER, TCP: n.udp.LocalAddr().Port(),
		Proof: ed25519.Sign(n.keys.Sign, append([]byte(attachDomain), exporter...))}
	actx, cancel := context.WithTimeoutCause(ctx, n.profile.AnswerTimeout, errors.New("no answer"))
	defer cancel()
	var a attachAnswer
	if err := h.link.Call(actx, methodAttach, r, &a); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if u.udp {
		if err := n.here(ctx, u, h); err != nil {
			if n.current() == u {
				return fmt.Errorf("attach: %w", err)
			}
			// At login: datagrams that don't reach the own supernode are of no
			// use, whoever else may have answered.
			n.log.Warn("UDP is taken as blocked", "error", err)
			u.udp = false
		}
	}
	h.link.KeepAlive(n.profile.KeepAlive, n.profile.KeepAliveTimeout)
	u.setHome(h, nil)
	n.log.Info("attached", "supernode", h.node.Addr, "seen_tcp", a.Observed, "seen_udp", u.externalAddr())
	return nil
}

// setHome sets the own supernode, or why there is none now.
func (u *user) setHome(h *home, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own = h
	if err != nil {
		u.lastErr = err
	}
	close(u.moved)
	u.moved = make(chan struct{})
}

// home is the own supernode; while it is being replaced home waits, and tells
// in its error why that takes so long.
func (u *user) home(ctx context.Context) (*home, error) {
	for {
		u.mu.Lock()
		h, moved, last := u.own, u.moved, u.lastErr
		u.mu.Unlock()
		if h != nil && h.link.Err() == nil {
			return h, nil
		}
		if last == nil && h != nil {
			last = h.link.Err()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, fmt.Errorf("no supernode answers: %w", errors.Join(context.Cause(ctx), last))
		case <-u.ctx.Done():
			return nil, errors.New("logged out")
		}
	}
}

// stay keeps the user on line: it holds the NAT binding of the UDP socket and
// replaces the own supernode when it is lost (papers.md L13).
func (n *client) stay(u *user) {
	defer func() {
		u.mu.Lock()
		h := u.own
		u.mu.Unlock()
		if h != nil {
			h.close()
		}
	}()
	ping := time.NewTicker(n.profile.UDPKeepAlive)
	defer ping.Stop()
	for {
		u.mu.Lock()
		h := u.own // there is one: only replace, below, takes it away
		u.mu.Unlock()
		select {
		case <-u.ctx.Done():
			return
		case <-ping.C:
			if u.udp {
				if _, err := n.observe(u.ctx, u); err != nil && u.ctx.Err() == nil {
					n.log.Warn("UDP keep-alive not answered", "error", err)
				}
			}
		case <-h.link.Done():
			n.log.Warn("own supernode lost", "addr", h.node.Addr, "error", h.link.Err())
			h.link.Wait()
			if !n.replace(u) {
				return
			}
		}
	}
}

// replace finds another supernode, for as long as it takes; false means that
// the user has logged out.
func (n *client) replace(u *user) bool {
	u.setHome(nil, nil)
	for wait := n.profile.Reconnect; ; wait = min(2*wait, n.profile.ReconnectMax) {
		err := n.replaceOnce(u)
		if err == nil {
			return true
		}
		if u.ctx.Err() != nil {
			return false
		}
		u.setHome(nil, err)
		n.log.Warn("no new supernode yet", "error", err)
		select {
		case <-u.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

func (n *client) replaceOnce(u *user) error {
	n.mu.Lock()
	known := n.cache.Supernodes()
	n.mu.Unlock()
	h, list, err := n.settleAt(u.ctx, known, u.name)
	if err != nil {
		return err
	}
	if err := n.attach(u.ctx, u, h); err != nil {
		u.setHome(nil, err)
		h.close()
		return err
	}
	n.remember(list)
	for _, f := range n.atLogin {
		if err := f(u.ctx, u); err != nil {
			n.log.Warn("after a new supernode", "error", err)
		}
	}
	return nil
}
