package call

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/media"
	"gauntlet/nodes/wire"
)

// watch waits until the signalling breaks and brings it onto the next relay. It
// returns false when the call is to end.
func (c *Call) watch() bool {
	select {
	case <-c.ended:
		return false
	case <-c.signal().Done():
	}
	c.mu.Lock()
	hangingUp := c.hangingUp
	c.mu.Unlock()
	if hangingUp { // which is why it is closed, and what ends the call
		<-c.ended
		return false
	}
	if err := c.recover(); err != nil {
		c.end(err)
		return false
	}
	return true
}

// recover opens the signalling anew, where it goes over relays.
func (c *Call) recover() error {
	cause := c.signal().Err()
	if !c.overGroup {
		return fmt.Errorf("signalling lost: %w", cause)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	c.tasks.Go(func() {
		select {
		case <-c.ended:
			cancel()
		case <-stop:
		}
	})
	if err := c.reconnect(ctx); err != nil {
		return errors.Join(fmt.Errorf("signalling lost: %w", cause), err)
	}
	// What was said last may be lost.
	c.announce()
	c.countRelays(ctx)
	return nil
}

// reconnect opens the signalling over the next relay.
func (c *Call) reconnect(ctx context.Context) error {
	old := c.signal()
	conn, err := c.group.Connect(ctx)
	if err != nil {
		return err
	}
	old.Close()
	old.Wait()
	c.mu.Lock()
	relays := c.signalling.Relays
	c.signalling = conn.Path
	c.signalling.Relays = relays
	c.mu.Unlock()
	c.open(conn)
	if !c.caller {
		return nil
	}
	bound := c.service.client.Profile.CallTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	return c.signal().Call(ctx, methodResume, resumeRequest{Call: c.id}, nil)
}

// Hangup ends the call from this end and returns what it counted. The other
// end stops sending before it answers, and what is then still on its way is
// waited for a moment. This end sends until it is answered: silence before the
// other end knows why would have it look for another route.
func (c *Call) Hangup(ctx context.Context) Summary {
	s := c.stream
	c.stay()
	bound := c.service.client.Profile.AnswerTimeout
	ask, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	var answer hangupAnswer
	err := c.signal().Call(ask, methodHangup, hangupRequest{Reason: "hung up"}, &answer)
	s.halt()
	if err != nil {
		c.service.client.Log.Info("the other end does not answer the hangup", "peer", c.peer.Name, "error", err)
	} else {
		c.drain(ctx, s, answer.Sent)
	}
	c.end(errHungUp)
	<-c.over
	return c.summary()
}

// stay has media stay on its route, whatever comes or doesn't.
func (c *Call) stay() {
	c.mu.Lock()
	c.hangingUp = true
	c.mu.Unlock()
}

// errHungUp is the reason of a call that ended as it should.
var errHungUp = errors.New("hung up")

// drain waits until as many packets came as the other end sent, or no longer
// than a late one would take.
func (c *Call) drain(ctx context.Context, s *stream, sent int) {
	late := time.NewTimer(c.service.client.Profile.UDPAnswer)
	defer late.Stop()
	tick := time.NewTicker(time.Second / media.Rate)
	defer tick.Stop()
	for s.receiver.Stats().Received < sent {
		select {
		case <-tick.C:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// serveHangup stops this end's media and has the call end once the answer is
// on its way.
func (c *Call) serveHangup(body []byte) (any, error) {
	var request hangupRequest
	if err := wire.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	c.stay()
	sent := c.stream.halt()
	l := c.signal()
	c.tasks.Go(func() { // the other end closes the connection once it has the answer
		timer := time.NewTimer(c.service.client.Profile.AnswerTimeout)
		defer timer.Stop()
		select {
		case <-l.Done():
		case <-timer.C:
		case <-c.ended:
		}
		c.end(errHungUp)
	})
	return hangupAnswer{Sent: sent}, nil
}

// takeDown ends all that belongs to the call.
func (c *Call) takeDown() {
	if c.reason != nil && !errors.Is(c.reason, errHungUp) {
		// Tell the other end why, as long as it listens; that it may not
		// doesn't matter.
		ctx, cancel := context.WithTimeout(context.Background(), c.service.client.Profile.UDPAnswer)
		c.signal().Call(ctx, methodHangup, hangupRequest{Reason: c.reason.Error()}, nil)
		cancel()
	}
	c.mu.Lock()
	c.down = true
	l, group, checker, direct := c.link, c.group, c.checker, c.direct
	c.mu.Unlock()
	c.stream.halt()
	l.Close()
	l.Wait()
	if checker != nil {
		checker.close()
	}
	c.tasks.Wait()
	if c.freedom != nil {
		c.freedom.Close()
	}
	if direct != nil {
		direct.close()
	}
	if group != nil {
		group.Close()
	}
	summary := c.summary()
	c.service.remove(c, summary)
	c.service.client.Log.Info("call over", "peer", c.peer.Name, "reason", c.reason,
		"sent", summary.Sent, "received", summary.Received, "rejected", summary.Rejected)
	if c.service.config.Ended != nil {
		c.service.config.Ended(summary)
	}
}

// summary is what this end counted, once its load is halted.
func (c *Call) summary() Summary {
	stats := c.stream.receiver.Stats()
	return Summary{Call: c.id, Peer: c.peer.Name, Caller: c.caller, Media: c.Media(), Reason: c.reason,
		Sent: c.stream.halt(), Received: stats.Received, Rejected: stats.Rejected}
}
