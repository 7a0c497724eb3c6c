package call

import (
	"context"
	"errors"
	"time"
)

// free says of which end no box filters what the other sends, as far as that is
// known. Called with the lock held.
func (c *Call) free() (callee, caller bool) {
	mine, theirs := c.mine.Public || c.mineFree, c.theirs.Public || c.theirsFree
	if c.caller {
		return theirs, mine
	}
	return mine, theirs
}

// lag is how many intervals of checks a better pair may come after the first that
// works: by then the answer of an address on this end's own network is here.
const lag = 5

// nameDirect finds out which end is free towards the other, for the pair that media
// goes over, and has the claim follow. Should a better pair come later, it does so
// again.
func (c *Call) nameDirect() {
	for {
		c.mu.Lock()
		p, named, changed := c.pair, c.named, c.changed
		c.mu.Unlock()
		if p != nil && !p.tentative && p != named {
			p = c.best()
			mine, theirs := c.findFree(p)
			c.mu.Lock()
			c.named, c.mineFree, c.theirsFree = p, mine, theirs
			if r := c.paths.current; r != nil && r.relay < 0 {
				c.media = c.claim(r)
			}
			c.stir()
			c.mu.Unlock()
			continue
		}
		select {
		case <-changed:
		case <-c.ended:
			return
		}
	}
}

// awaitName waits until it is known who is free, where media goes straight to the
// other end, or no longer than a test of filtering may take: over a slow path that
// loses packets, the name follows while media flows.
func (c *Call) awaitName(ctx context.Context) {
	timer := time.NewTimer(c.service.client.Profile.STUNWait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		r, known, changed := c.paths.current, c.pair == c.named, c.changed
		c.mu.Unlock()
		if known || r == nil || r.relay >= 0 {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// best waits, now that a pair works, until no better one is to be expected, and
// returns the best.
func (c *Call) best() *pair {
	timer := time.NewTimer(lag * c.service.client.Profile.CheckInterval)
	defer timer.Stop()
	select {
	case <-c.checked:
	case <-timer.C:
	case <-c.ended:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pair
}

// findFree asks the other end, over a pair that works.
func (c *Call) findFree(p *pair) (mine, theirs bool) {
	client := c.service.client
	ctx, cancel := c.context(client.Profile.AnswerTimeout, errors.New("not found out in time"))
	defer cancel()
	c.mu.Lock()
	end, down := c.freedom, c.down
	c.mu.Unlock()
	if end == nil && !down {
		var err error
		if end, err = c.service.free.Open(ctx, c.id, c.peer, c.mine.Public); err != nil {
			client.Log.Warn("not found out who is free", "peer", c.peer.Name, "error", err)
			return false, false
		}
		c.mu.Lock()
		c.freedom = end
		c.mu.Unlock()
	}
	if end == nil {
		return false, false
	}
	return end.Settle(ctx, p.to)
}
