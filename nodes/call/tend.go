package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"gauntlet/nodes/media"
	"gauntlet/nodes/relay"
	"gauntlet/nodes/wire"
)

// readFull fills b from a connection.
func readFull(conn net.Conn, b []byte) error {
	_, err := io.ReadFull(conn, b)
	return err
}

// take counts a packet that came over a route. It is called where packets are
// read, allocates nothing and does not block.
func (c *Call) take(r *route, packet []byte) {
	if _, err := c.stream.receiver.Receive(packet, time.Now()); err != nil {
		return
	}
	first := r.heard.Add(1) == 1
	if r.relay < 0 {
		return
	}
	c.relayed.Add(1)
	if first {
		select { // the other end may have moved there
		case c.poke <- struct{}{}:
		default:
		}
	}
}

// decide has this end send on the best route. Called with the lock held.
func (c *Call) decide() {
	if c.down || c.hangingUp || c.isOver() {
		return
	}
	if r := c.paths.best(); c.paths.use(r) {
		c.switched()
	}
	c.stir()
}

// switched puts the current route into effect. Called with the lock held.
func (c *Call) switched() {
	r := c.paths.current
	c.stream.route.Store(r)
	if c.group != nil {
		c.group.SetMedia(r.relay)
	}
	c.media = c.claim(r)
	c.service.client.Log.Info("media goes", "peer", c.peer.Name, "path", c.media.Path, "transport", r.transport,
		"relay", r.relayName)
	c.stream.start(context.WithoutCancel(c.service.ctx))
}

// tend keeps media on the best route until the call ends: it gives up a route
// that brings nothing any more, follows the other end, has legs opened in time,
// and reports to the other end what came.
func (c *Call) tend() {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	reports := reporter{next: time.Now().Add(reportInterval)}
	for {
		ticked := false
		select {
		case <-c.ended:
			return
		case <-c.poke:
		case <-ticker.C:
			ticked = true
		}
		c.look(ticked)
		if ticked {
			c.report(&reports)
		}
	}
}

// look decides on routes and legs anew.
func (c *Call) look(ticked bool) {
	p := c.service.client.Profile
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down || c.hangingUp {
		return
	}
	if ticked && c.counted {
		c.holds(c.group.Alive())
		c.refill()
	}
	direct := c.paths.direct != nil && !c.paths.dead
	if !direct && time.Since(c.agreed) >= p.DirectHeadStart {
		c.paths.relayed = true
	}
	if old, quiet := c.paths.current, c.paths.quiet; c.paths.follow() {
		if quiet >= patience/2 || old.transport == relay.TCP {
			// The other end has left the relay for its silence, and isn't there to be
			// signalled to either. Over TCP nothing else makes it leave, and this end may
			// hear what is late, and of the other's leaving only seconds later.
			c.leave(old)
		}
		c.switched()
	}
	if ticked && c.paths.silent() {
		c.leave(c.paths.current)
		c.abandonRoute(fmt.Errorf("nothing came for %v", time.Duration(c.paths.quiet)*beat))
	}
	if r := c.paths.best(); c.paths.use(r) {
		c.switched()
		c.stir()
	}
	switch {
	case c.paths.current != nil && c.paths.current.relay >= 0:
		c.openLegs(2) // the one that carries, and the next
	case direct:
	case c.paths.relayed || time.Since(c.agreed) >= p.DirectHeadStart/legLead:
		c.openLegs(1)
	}
}

// fewRelays is how many relays leave a call without one that stands by, and
// refillInterval how long it goes on so before others are asked for, and after that.
const (
	fewRelays      = 2
	refillInterval = 10 * time.Second
)

// refill has the caller get other relays in the place of those that are gone, before
// the last is. Called with the lock held.
func (c *Call) refill() {
	if !c.caller || c.held >= fewRelays {
		c.refilled = time.Now()
		return
	}
	if c.refilling || time.Since(c.refilled) < refillInterval {
		return
	}
	c.refilling = c.start(func() {
		ctx, cancel := c.context(refillInterval, errors.New("no relays in time"))
		defer cancel()
		c.replenish(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refilling, c.refilled = false, time.Now()
	})
}

// legLead is the part of the time that direct paths have to themselves after
// which legs at relays are opened, so that they are there when it is over.
const legLead = 4

// abandonRoute gives the current route up, if there may be another. Called with
// the lock held.
func (c *Call) abandonRoute(why error) {
	r := c.paths.current
	c.paths.quiet = 0
	if r.relay >= 0 && c.paths.bad[r.relay] {
		return
	}
	c.service.client.Log.Info("media route given up", "peer", c.peer.Name, "relay", r.relayName, "because", why)
	c.paths.giveUp(r)
	if r.relay < 0 {
		c.paths.relayed = true
	}
}

// leave takes the signalling off a relay that brings nothing any more. Called
// with the lock held.
func (c *Call) leave(r *route) {
	if r.relay >= 0 && c.overGroup && c.group.Index() == r.relay && !c.paths.bad[r.relay] {
		group := c.group
		c.start(func() { group.Leave(r.relay) })
	}
}

// openLegs opens media legs at relays, in their order, until there are so many
// of use. Called with the lock held.
func (c *Call) openLegs(want int) {
	if c.group == nil {
		c.seekRelays()
		return
	}
	for i := c.paths.first(); i < c.group.Len() && want > 0; i++ {
		if !c.paths.bad[i] && c.openLeg(i) {
			want--
		}
	}
}

// openLeg has a media leg opened, if there is none, and says whether there is
// or may be one. Called with the lock held.
func (c *Call) openLeg(i int) bool {
	if c.opening[i] || c.paths.legs[i] != nil {
		return true
	}
	group := c.group
	c.opening[i] = c.start(func() {
		p := c.service.client.Profile
		bound := 2 * p.CallTimeout
		ctx, cancel := c.context(bound, fmt.Errorf("no media leg in %v", bound))
		defer cancel()
		session, at, err := group.Relay(ctx, i)
		var r *route
		if err == nil {
			r, err = overRelay(ctx, c.service.client, c.mine.UDP, session, at, i, c.take)
		}
		if err != nil {
			c.mu.Lock()
			c.paths.bad[i] = true
			delete(c.opening, i)
			c.mu.Unlock()
			c.fail(fmt.Errorf("no media leg at relay %d: %w", i, err))
			return
		}
		c.mu.Lock()
		c.paths.legs[i] = r
		delete(c.opening, i)
		delete(c.paths.bad, i)
		if !c.start(func() { c.mourn(r, session) }) {
			c.tasks.Go(r.close)
		}
		c.decide()
		c.mu.Unlock()
		c.announce()
	})
	return c.opening[i]
}

// announce tells the other end of all open legs. Where the signalling breaks,
// that is done again over the next.
func (c *Call) announce() {
	bound := c.service.client.Profile.CallTimeout
	ctx, cancel := c.context(bound, errors.New("no signalling"))
	defer cancel()
	var open legs
	c.mu.Lock()
	for i, r := range c.paths.legs {
		open.List = append(open.List, leg{Relay: i, Transport: r.transport})
	}
	l := c.link
	c.mu.Unlock()
	if err := l.Notify(ctx, noticeLegs, open); err != nil {
		c.service.client.Log.Info("legs not announced", "peer", c.peer.Name, "error", err)
	}
}

// mourn waits until a route is dead, or the call over, and closes it.
func (c *Call) mourn(r *route, session *relay.Session) {
	var left <-chan struct{}
	if session != nil {
		left = session.Done()
	}
	select {
	case <-left:
	case <-r.lost:
	case <-c.ended:
	}
	c.mu.Lock()
	if !c.isOver() {
		if c.paths.current == r {
			c.service.client.Log.Info("media route lost", "peer", c.peer.Name, "relay", r.relayName)
		}
		c.paths.giveUp(r)
		if r.relay >= 0 {
			delete(c.paths.legs, r.relay)
		} else {
			c.paths.relayed = true
		}
		c.decide()
	}
	c.mu.Unlock()
	r.close()
}

// reporter remembers what was reported.
type reporter struct {
	next  time.Time
	stats media.Stats
	heard map[int]uint64
}

// report tells the other end what came of its media over the one relay that
// brought it, if it was one.
func (c *Call) report(r *reporter) {
	now := time.Now()
	if now.Before(r.next) {
		return
	}
	r.next = now.Add(reportInterval)
	stats := c.stream.receiver.Stats()
	c.mu.Lock()
	heard, from := map[int]uint64{}, []int{}
	for i, leg := range c.paths.legs {
		if heard[i] = leg.heard.Load(); heard[i] > r.heard[i] {
			from = append(from, i)
		}
	}
	if c.direct != nil {
		if heard[noRelay] = c.direct.heard.Load(); heard[noRelay] > r.heard[noRelay] {
			from = append(from, noRelay)
		}
	}
	l := c.link
	c.mu.Unlock()
	last := r.stats
	r.stats, r.heard = stats, heard
	if len(from) != 1 || from[0] == noRelay || last.Received == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), beat)
	defer cancel()
	l.Notify(ctx, noticeReport, report{ // another follows
		Relay: from[0], Expected: stats.Expected - last.Expected, Received: stats.Received - last.Received})
}

// takeReport takes the other end's report of what this end sent.
func (c *Call) takeReport(body []byte) error {
	var r report
	if err := wire.Unmarshal(body, &r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paths.reported(r) {
		c.abandonRoute(fmt.Errorf("%d of %d packets were lost", r.Expected-r.Received, r.Expected))
		c.stir()
	}
	return nil
}
