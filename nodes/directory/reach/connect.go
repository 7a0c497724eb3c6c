package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
)

// relayRounds is how often relays are chosen when none of those chosen before
// could be used.
const relayRounds = 2

// Connect reaches a user for a purpose: straight, where its record says that
// it can be reached over TCP; by having it connect here, where this user can
// be; else through relays, of which as many as asked for are chosen. It
// returns as soon as the connection is there; the group's other relays may
// still be joining, see Group.Held.
func (r *Reacher) Connect(ctx context.Context, to *directory.Record, purpose string, relays int) (*Conn, error) {
	session := directory.NewSession()
	me, peer := r.client.Cert.Name, to.Name()
	var failures []error
	if to.Reach.PublicTCP {
		conn, err := r.dial(ctx, to.Reach.Listen, purpose, to.Certificate, prefaceCaller, session)
		if err == nil {
			return &Conn{Conn: conn, Peer: to.Certificate, Session: session, Dialled: true,
				Path: control.Path{Path: "direct", Legs: []control.Leg{{From: me, To: peer, Transport: "tcp"}}}}, nil
		}
		failures = append(failures, fmt.Errorf("straight: %w", err))
	} else if r.client.Reach().PublicTCP {
		conn, err := r.callBack(ctx, to, purpose, session)
		if err == nil {
			return &Conn{Conn: conn, Peer: to.Certificate, Session: session,
				Path: control.Path{Path: "reversed", Legs: []control.Leg{{From: me, To: peer, Transport: "tcp"}}}}, nil
		}
		failures = append(failures, fmt.Errorf("reversed: %w", err))
	}
	for range relayRounds {
		if ctx.Err() != nil {
			break
		}
		group, err := r.Group(ctx, to, purpose, session, relays)
		if err != nil {
			failures = append(failures, err)
			break
		}
		conn, err := group.Connect(ctx)
		if err == nil {
			return conn, nil
		}
		group.Close()
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("reach %s: %w", peer, errors.Join(failures...))
}

// Group has relays chosen for this user and another and begins to join them,
// as the other does when it is told. Without a Connect over it, the other's
// GroupHandler of the purpose takes it. Supernodes by the names in exclude are
// not chosen.
func (r *Reacher) Group(ctx context.Context, to *directory.Record, purpose string, session directory.Session, relays int, exclude ...string) (*Group, error) {
	places, err := r.client.Introduce(ctx, to, directory.Through, session, purpose, relays, exclude...)
	if err != nil {
		return nil, err
	}
	return r.join(places, session, purpose, to.Certificate, true), nil
}

// callBack has a user connect to this one and waits for that.
func (r *Reacher) callBack(ctx context.Context, to *directory.Record, purpose string, session directory.Session) (*tls.Conn, error) {
	waiting := &awaited{peer: to.Certificate.Hash(), purpose: purpose, conn: make(chan *tls.Conn, 1)}
	r.mu.Lock()
	r.awaited[session] = waiting
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.awaited, session)
		r.mu.Unlock()
		select {
		case late := <-waiting.conn:
			late.Close()
		default:
		}
	}()
	bound := r.client.Profile.ConnectTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no connection from %s in %v", to.Name(), bound))
	defer cancel()
	if _, err := r.client.Introduce(ctx, to, directory.Dial, session, purpose, 0); err != nil {
		return nil, err
	}
	select {
	case conn := <-waiting.conn:
		return conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
