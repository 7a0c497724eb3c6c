package call

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/relay"
)

// settle decides the media path at the caller's end: the pair that was
// checked, else a relay. It returns once media came in and it is settled which
// relays both ends hold.
func (c *Call) settle(ctx context.Context) error {
	err := c.settleDirect(ctx)
	if err != nil {
		c.service.client.Log.Info("media goes over a relay", "peer", c.peer.Name, "because", err)
		if overRelay := c.settleRelay(ctx); overRelay != nil {
			return fmt.Errorf("no media path: %w", errors.Join(err, overRelay))
		}
	}
	bound := c.service.client.Profile.MediaTimeout
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-c.stream.receiver.Arrived():
	case <-timer.C:
		return fmt.Errorf("no media packet came in %v", bound)
	case <-c.ended:
		return c.reason
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.countRelays(ctx)
	return nil
}

// countRelays enters in the paths how many relays both ends hold.
func (c *Call) countRelays(ctx context.Context) {
	c.mu.Lock()
	group := c.group
	c.mu.Unlock()
	if group == nil {
		return
	}
	held := group.Held(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.media.Relays, c.signalling.Relays = held, held
}

// settleDirect takes the pair that was checked, if both ends found one.
func (c *Call) settleDirect(ctx context.Context) error {
	request := mediaRequest{Direct: true}
	r, err := c.route(ctx, request)
	if err != nil {
		return err
	}
	if _, err := c.propose(ctx, request); err != nil {
		r.close()
		return err
	}
	if !c.adopt(r, relay.UDP) {
		return c.reason
	}
	return nil
}

// settleRelay opens media legs at the relay that carries the signalling; or at
// the first of relays that are chosen now, where the signalling needs none.
func (c *Call) settleRelay(ctx context.Context) error {
	group, err := c.relays(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for i := max(0, group.Index()); i < group.Len(); i++ {
		err := c.carryOver(ctx, group, i)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || c.overGroup {
			// With the signalling on the same relay, another one is only
			// tried once that one is dead: see watch.
			break
		}
	}
	return errors.Join(failures...)
}

// carryOver opens media legs at relay i of the group, this end's and then the
// other's.
func (c *Call) carryOver(ctx context.Context, group *reach.Group, i int) error {
	request := mediaRequest{Relay: i}
	r, err := c.route(ctx, request)
	if err != nil {
		return err
	}
	theirs, err := c.propose(ctx, request)
	if err != nil {
		r.close()
		return err
	}
	group.SetIndex(i)
	if !c.adopt(r, theirs) {
		return c.reason
	}
	return nil
}

// propose has the callee go a way, and returns the transport of its end.
func (c *Call) propose(ctx context.Context, request mediaRequest) (relay.Transport, error) {
	bound := c.service.client.Profile.CallTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	var answer mediaAnswer
	if err := c.signal().Call(ctx, methodMedia, request, &answer); err != nil {
		return 0, err
	}
	if !answer.Ready {
		return 0, fmt.Errorf("%s: %q", c.peer.Name, answer.Why)
	}
	return answer.Transport, nil
}

// relays are the call's; where it has none yet, the caller has some chosen.
func (c *Call) relays(ctx context.Context) (*reach.Group, error) {
	c.mu.Lock()
	group := c.group
	c.mu.Unlock()
	if group != nil {
		return group, nil
	}
	p := c.service.client.Profile
	ctx, cancel := context.WithTimeoutCause(ctx, p.CallTimeout, fmt.Errorf("no relays in %v", p.CallTimeout))
	defer cancel()
	if !c.caller {
		select {
		case <-c.grouped:
			return c.group, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.ended:
			return nil, c.reason
		}
	}
	group, err := c.service.reach.Group(ctx, c.record, relaysPurpose, c.id, p.Relays)
	if err != nil {
		return nil, err
	}
	if !c.giveGroup(group) {
		group.Close()
		return nil, c.reason
	}
	return group, nil
}

// giveGroup makes relays the call's, if it has none and is not over.
func (c *Call) giveGroup(group *reach.Group) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended:
		return false
	default:
	}
	if c.group != nil {
		return false
	}
	c.group = group
	close(c.grouped)
	group.StandBy(c.service.client.Profile.StandbyInterval)
	return true
}

// route opens this end of a way for media.
func (c *Call) route(ctx context.Context, request mediaRequest) (*route, error) {
	if request.Direct {
		select {
		case <-c.checked:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !c.working.IsValid() {
			return nil, errors.New("no candidates reach each other")
		}
		c.checker.mu.Lock()
		also := append(c.checker.candidates[:0:0], c.checker.candidates...)
		c.checker.mu.Unlock()
		return direct(c.service.client.Socket, c.working, also, c.stream.take), nil
	}
	group, err := c.relays(ctx)
	if err != nil {
		return nil, err
	}
	session, at, err := group.Relay(ctx, request.Relay)
	if err != nil {
		return nil, err
	}
	r, err := overRelay(ctx, c.service.client, session, at, request.Relay, c.stream.take)
	if err != nil {
		return nil, err
	}
	r.relayName = at.Name
	return r, nil
}

// adopt makes a route the call's, and begins to send. theirs is the transport
// of the other end, where this one knows it. It is false for a call that is
// over.
func (c *Call) adopt(r *route, theirs relay.Transport) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended:
		r.close()
		return false
	default:
	}
	c.media = c.claim(r, theirs)
	c.stream.use(r)
	c.stream.start(context.WithoutCancel(c.service.ctx))
	select {
	case c.routed <- struct{}{}:
	default:
	}
	return true
}

// claim is the path of a route, from caller to callee.
func (c *Call) claim(r *route, theirs relay.Transport) control.Path {
	me, peer := c.service.client.Cert.Name, c.peer.Name
	if r.relay >= 0 {
		mine, other := control.Leg{From: me, To: r.relayName, Transport: r.transport.String()},
			control.Leg{From: r.relayName, To: peer, Transport: theirs.String()}
		if !c.caller {
			mine.From, mine.To = mine.To, mine.From
			other.From, other.To = other.To, other.From
			mine, other = other, mine
		}
		return control.Path{Path: "relayed", Hops: 1, Carrying: 1, Relays: c.group.Len(), Legs: []control.Leg{mine, other}}
	}
	path := control.Path{Path: "punched", Legs: []control.Leg{{From: me, To: peer, Transport: "udp"}}}
	callee, caller := c.mine.Public, c.checker.theirs.Public
	if c.caller {
		callee, caller = caller, callee
	} else {
		path.Legs[0].From, path.Legs[0].To = peer, me
	}
	switch {
	case callee:
		path.Path = "direct"
	case caller:
		path.Path = "reversed"
	}
	return path
}

// carryingSession is the relay session that media goes over, nil without.
func (c *Call) carryingSession() (*relay.Session, directory.Supernode, int) {
	c.mu.Lock()
	group, stream := c.group, c.stream
	c.mu.Unlock()
	if group == nil || stream == nil {
		return nil, directory.Supernode{}, -1
	}
	r := stream.route.Load()
	if r == nil || r.relay < 0 {
		return nil, directory.Supernode{}, -1
	}
	session, at, _ := group.Relay(context.Background(), r.relay) // settled, since there is a route over it
	return session, at, r.relay
}
