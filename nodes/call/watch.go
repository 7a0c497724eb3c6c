package call

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/media"
	"gauntlet/nodes/wire"
)

// watch waits until something happens to the call and deals with it. It
// returns false when the call is to end.
func (c *Call) watch() bool {
	var mediaLost <-chan struct{}
	if c.caller { // the callee goes where the caller says
		if session, _, _ := c.carryingSession(); session != nil {
			mediaLost = session.Done()
		}
	}
	select {
	case <-c.ended:
		return false
	case <-c.routed: // there is another relay to watch, perhaps
		return true
	case <-c.signal().Done():
	case <-mediaLost:
		if c.overGroup {
			// The signalling goes over the same relay, and is lost too.
			select {
			case <-c.signal().Done():
			case <-c.ended:
				return false
			}
		}
	}
	if err := c.recover(); err != nil {
		c.end(err)
		return false
	}
	return true
}

// recover brings the call onto the next relay.
func (c *Call) recover() error {
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
	if cause := c.signal().Err(); cause != nil {
		if !c.overGroup {
			return fmt.Errorf("signalling lost: %w", cause)
		}
		if err := c.reconnect(ctx); err != nil {
			return errors.Join(fmt.Errorf("signalling lost: %w", cause), err)
		}
	}
	if !c.caller {
		return nil
	}
	session, at, number := c.carryingSession()
	if session == nil || session.Err() == nil {
		return nil
	}
	group := c.group // never changes once set
	first := number + 1
	if c.overGroup {
		first = group.Index()
	}
	failures := []error{fmt.Errorf("media relay %s lost: %w", at.Name, session.Err())}
	for i := first; i < group.Len(); i++ {
		err := c.carryOver(ctx, group, i)
		if err == nil {
			c.countRelays(ctx)
			c.service.client.Log.Info("media goes on over the next relay", "lost", at.Name, "relay", i)
			return nil
		}
		failures = append(failures, err)
		if c.overGroup {
			break
		}
	}
	return errors.Join(failures...)
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
// waited for a moment.
func (c *Call) Hangup(ctx context.Context) Summary {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	s.halt()
	bound := c.service.client.Profile.AnswerTimeout
	ask, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	var answer hangupAnswer
	err := c.signal().Call(ask, methodHangup, hangupRequest{Reason: "hung up"}, &answer)
	if err != nil {
		c.service.client.Log.Info("the other end does not answer the hangup", "peer", c.peer.Name, "error", err)
	} else {
		c.drain(ctx, s, answer.Sent)
	}
	c.end(errHungUp)
	<-c.over
	return c.summary()
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
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	sent := 0
	if s != nil {
		sent = s.halt()
	}
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
	l, s, group, unanswer := c.link, c.stream, c.group, c.unanswer
	c.mu.Unlock()
	if s != nil {
		s.halt()
	}
	l.Close()
	l.Wait()
	if unanswer != nil {
		unanswer()
	}
	c.tasks.Wait()
	if s != nil {
		s.use(nil)
	}
	if group != nil {
		group.Close()
	}
	summary := c.summary()
	c.service.remove(c, summary)
	c.service.client.Log.Info("call over", "peer", c.peer.Name, "reason", c.reason,
		"sent", summary.Sent, "received", summary.Received)
	if c.service.config.Ended != nil {
		c.service.config.Ended(summary)
	}
}

// summary is what this end counted, once its load is halted.
func (c *Call) summary() Summary {
	out := Summary{Call: c.id, Peer: c.peer.Name, Caller: c.caller, Media: c.Media(), Reason: c.reason}
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if s != nil {
		out.Sent = s.halt()
		out.Received = s.receiver.Stats().Received
	}
	return out
}
