package call

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// agree takes the other end's offer and begins to look for ways to it.
func (c *Call) agree(theirs offer) error {
	p := c.service.client.Profile
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.agreed.IsZero() || c.down {
		return errors.New("the call is over, or agreed on already")
	}
	theirs = theirs.usable(c.mine, c.service.client.Network)
	c.agreed, c.theirs = time.Now(), theirs
	switch {
	case c.checker != nil && theirs.UDP && (p.Punch || theirs.Public):
		c.checker.begin(theirs)
		c.paths.relayed = hopeless(c.mine, theirs)
		c.service.client.Socket.Know(c.peer) // it may ask who is free before this end does
		c.start(c.check)
		c.start(c.nameDirect)
	case c.mine.UDP && theirs.UDP || !c.mine.Listen.IsValid() && !theirs.Listen.IsValid():
		close(c.checked)
		c.paths.relayed = true
	default:
		c.start(c.connect)
	}
	c.start(c.tend)
	return nil
}

// check runs the checks of candidates.
func (c *Call) check() {
	defer close(c.checked)
	p := c.service.client.Profile
	ctx, cancel := c.context(p.PunchTimeout, fmt.Errorf("not in %v", p.PunchTimeout))
	defer cancel()
	if err := c.checker.run(ctx, p.CheckInterval); err != nil {
		c.mu.Lock()
		c.paths.dead = true // what was tentative has failed
		c.mu.Unlock()
		c.fail(fmt.Errorf("no direct media path: %w", err))
	}
}

// maxFailures bounds what is said of a call for which there is no media path.
const maxFailures = 2 * maxRelays

// fail notes what went wrong on the way to a media path; relays may carry from
// then on.
func (c *Call) fail(err error) {
	c.service.client.Log.Info("media", "peer", c.peer.Name, "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failures) < maxFailures {
		c.failures = append(c.failures, err)
	}
	c.paths.relayed = true
	c.stir()
}

// stir has tend and settle look again. Called with the lock held.
func (c *Call) stir() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// works is told of a pair that works, in the socket's reader: media goes over
// it at once.
func (c *Call) works(p pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pair = &p
	c.direct.to.Store(&p.to)
	c.paths.direct = &c.direct.route
	if c.paths.current == c.paths.direct {
		c.media = c.claim(c.paths.current)
	}
	c.decide()
}

// connect opens a TCP connection for media straight to the other end, or waits
// for the other end's: the caller dials if it can.
func (c *Call) connect() {
	defer close(c.checked)
	p := c.service.client.Profile
	bound := 2 * p.ConnectTimeout
	ctx, cancel := c.context(bound, fmt.Errorf("no media connection in %v", bound))
	defer cancel()
	var r *route
	if c.theirs.Listen.IsValid() && (c.caller || !c.mine.Listen.IsValid()) {
		conn, err := dialMedia(ctx, c.service.client, c.theirs)
		if err != nil {
			c.fail(fmt.Errorf("no direct media path: %w", err))
			return
		}
		r = overTCP(conn, &route{relay: noRelay, dialled: true}, c.take)
	} else {
		select {
		case r = <-c.adopted:
		case <-ctx.Done():
			c.fail(fmt.Errorf("no direct media path: %w", context.Cause(ctx)))
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp, c.paths.direct = r, r
	c.decide()
	if !c.start(func() { c.mourn(r, nil) }) {
		c.tasks.Go(r.close)
	}
}

// ServeMedia takes a connection for media that another end opened to this
// node's listener, of which it owns the connection from now on. It returns when
// that is over.
func (s *Service) ServeMedia(conn net.Conn) error {
	var wire [relay.TokenSize]byte
	conn.SetReadDeadline(time.Now().Add(s.client.Profile.AnswerTimeout))
	if err := readFull(conn, wire[:]); err != nil {
		conn.Close()
		return fmt.Errorf("await media token: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	token, ok := relay.ParseToken(wire[:])
	c := (*Call)(nil)
	if ok {
		c = s.redeem(token)
	}
	if c == nil {
		conn.Close()
		return errors.New("unknown or spent media token")
	}
	r := overTCP(conn, &route{relay: noRelay}, c.take)
	c.adopted <- r // it has room for one, and a token is good for one
	select {
	case <-r.lost:
	case <-c.over:
	}
	select { // nobody has taken it
	case r := <-c.adopted:
		r.close()
	default:
	}
	r.close()
	return nil
}

// redeem finds the call that gave out a token, once.
func (s *Service) redeem(token relay.Token) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		c.mu.Lock()
		good := c.mine.Listen.IsValid() && c.mine.Token == token && !c.redeemed && !c.down
		c.redeemed = c.redeemed || good
		c.mu.Unlock()
		if good {
			return c
		}
	}
	return nil
}

// takeLegs is told which legs the other end has open.
func (c *Call) takeLegs(body []byte) error {
	var message legs
	if err := wire.Unmarshal(body, &message); err != nil {
		return err
	}
	if len(message.List) > maxRelays {
		return fmt.Errorf("%d legs", len(message.List))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range message.List {
		switch {
		case l.Relay == noRelay && c.caller:
			c.seekRelays()
		case l.Relay < 0 || l.Relay >= maxRelays:
		default:
			_, known := c.paths.ready[l.Relay]
			c.paths.ready[l.Relay] = l.Transport
			if !known || !c.paths.bad[l.Relay] {
				c.openReady(l.Relay)
			}
		}
	}
	if r := c.paths.current; r != nil && r.relay >= 0 {
		c.media = c.claim(r) // the other end's transport may be news
	}
	c.decide()
	return nil
}

// openReady opens a leg where the other end has one, if this end has been given
// that relay. Called with the lock held.
func (c *Call) openReady(i int) {
	if c.group != nil && i < c.group.Len() {
		c.openLeg(i)
	}
}

// settle waits at the caller's end until media came in, and it is settled
// which way it goes and which relays both ends hold.
func (c *Call) settle(ctx context.Context) error {
	p := c.service.client.Profile
	bound := p.PunchTimeout + p.CallTimeout + p.MediaTimeout
	timer := time.NewTimer(bound)
	defer timer.Stop()
	arrived, checked := c.stream.receiver.Arrived(), c.checked
	settled := false
	for !settled || arrived != nil {
		c.mu.Lock()
		r, changed, stuck := c.paths.current, c.changed, c.stuck()
		failures := errors.Join(c.failures...)
		settled = r != nil && (r.relay >= 0 && checked == nil || r.relay < 0 && (c.pair == nil || !c.pair.tentative))
		c.mu.Unlock()
		if stuck {
			return fmt.Errorf("no media path: %w", failures)
		}
		if settled && arrived == nil {
			break
		}
		select {
		case <-arrived:
			arrived = nil
		case <-checked:
			checked = nil
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("no media packet came in %v: %w", bound, failures)
		case <-c.ended:
			return c.reason
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.awaitName(ctx)
	c.replenish(ctx)
	c.countRelays(ctx)
	return nil
}

// stuck says that there is no way to the other end and none will come. Called
// with the lock held.
func (c *Call) stuck() bool {
	select {
	case <-c.checked:
	default:
		return false
	}
	if c.paths.current != nil || len(c.opening) > 0 || len(c.paths.legs) > 0 {
		return false
	}
	return c.noGroup != nil || c.group != nil && len(c.paths.bad) >= c.group.Len()
}

// countRelays waits until it is settled which relays both ends hold, and enters
// in the paths how many those are.
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
	c.counted = true
	c.holds(held)
}

// holds enters in the paths how many relays both ends hold. Called with the lock
// held.
func (c *Call) holds(relays int) {
	c.held, c.media.Relays, c.signalling.Relays = relays, relays, relays
}

// maxRelays bounds the relays of a call, those in the place of others among
// them.
const maxRelays = 16

// replenish has others chosen in the place of relays that one of the ends could
// not join: they refused, or are out of its reach. Only the caller does so.
func (c *Call) replenish(ctx context.Context) {
	c.mu.Lock()
	group := c.group
	c.mu.Unlock()
	if group == nil {
		return
	}
	p := c.service.client.Profile
	for range replenishRounds {
		missing := p.Relays - group.Held(ctx)
		if missing <= 0 || group.Len()+missing > maxRelays || ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithTimeoutCause(ctx, p.CallTimeout, fmt.Errorf("no relays in %v", p.CallTimeout))
		more, err := c.service.reach.Group(ctx, c.record, relaysPurpose, c.id, missing, group.Names()...)
		cancel()
		if err != nil {
			c.service.client.Log.Info("no other relays", "peer", c.peer.Name, "error", err)
			return
		}
		group.Absorb(more)
	}
}

// replenishRounds is how often relays are chosen in the place of others.
const replenishRounds = 3

// seekRelays gets relays for a call that has none: the caller has some chosen,
// the callee asks it to. Called with the lock held.
func (c *Call) seekRelays() {
	if c.group != nil || c.asking || c.noGroup != nil {
		return
	}
	c.asking = c.start(func() {
		p := c.service.client.Profile
		bound := fmt.Errorf("no relays in %v", p.CallTimeout)
		ctx, cancel := c.context(p.CallTimeout, bound)
		defer cancel()
		err := error(nil)
		if c.caller {
			var group *reach.Group
			if group, err = c.service.reach.Group(ctx, c.record, relaysPurpose, c.id, p.Relays); err == nil {
				if !c.giveGroup(group) {
					group.Close()
				}
				return
			}
		} else {
			c.signal().Notify(ctx, noticeLegs, legs{List: []leg{{Relay: noRelay}}}) // lost with the signalling, if at all
			select {
			case <-c.grouped:
				return
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		c.mu.Lock()
		c.noGroup = err
		c.mu.Unlock()
		c.fail(err)
	})
}

// giveGroup gives the call relays: its first, or more of them. A call that is
// over takes none, and false is returned.
func (c *Call) giveGroup(group *reach.Group) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down || c.isOver() || c.group != nil && c.group.Len()+group.Len() > maxRelays {
		return false
	}
	if c.group != nil {
		c.group.Absorb(group)
	} else {
		c.group, c.held = group, group.Len()
		close(c.grouped)
		group.StandBy(c.service.client.Profile.StandbyInterval)
	}
	for i := range c.paths.ready {
		if c.paths.legs[i] == nil && !c.paths.bad[i] {
			c.openReady(i)
		}
	}
	c.stir()
	return true
}
