package call

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/stun/v3"

	"gauntlet/nodes/datagram"
)

// checker finds out over which addresses two ends reach each other: STUN
// Binding requests with short-term credentials (RFC 8489 §9.1) to all of the
// other end's candidates, answered to the address that they really came from,
// which is a new candidate if it was unknown (peer-reflexive, RFC 8445
// §7.3.1.3). A pair works when its own request was answered.
type checker struct {
	socket *datagram.Socket
	mine   offer
	heard  func(from netip.AddrPort) // a candidate of the other end's: media may come from there
	found  func(pair)                // a pair works, or may, and none as good was found before

	mu       sync.Mutex
	theirs   *offer // nil until it came
	checks   []*check
	byID     map[[stun.TransactionIDSize]byte]*check
	best     *pair
	tried    bool // a pair was found tentatively
	unanswer func()
}

// check is the checking of one candidate. Its request is the same each time.
type check struct {
	to       netip.AddrPort
	request  *stun.Message // nil until the other end's credentials are known
	answered bool
}

// pair is the way to an address of the other end's.
type pair struct {
	to     netip.AddrPort
	mapped netip.AddrPort // this end as the other one sees it
	// tentative says that the other end's request came from there, and nothing
	// more yet. That way is open, since that end has just sent along it, and
	// its address is one that it named itself: media need not wait for a round
	// trip more, unless this end's own check then fails.
	tentative bool
	// host says that it is a private address of the other end's own, of the
	// same network: better than one that a box translates.
	host bool
}

// newChecker answers the other end's requests from now on, until close. heard
// and found are called from the socket's reader and must not block.
func newChecker(socket *datagram.Socket, mine offer, heard func(netip.AddrPort), found func(pair)) *checker {
	c := &checker{socket: socket, mine: mine, heard: heard, found: found,
		byID: map[[stun.TransactionIDSize]byte]*check{}}
	c.unanswer = socket.HandleSTUN(c.take)
	return c
}

func (c *checker) close() { c.unanswer() }

// take takes a message of the other end's. It runs in the socket's reader.
func (c *checker) take(from netip.AddrPort, m *stun.Message) bool {
	switch m.Type {
	case stun.BindingRequest:
		return c.answer(from, m)
	case stun.BindingSuccess:
		return c.answered(from, m)
	}
	return false
}

// answer takes a request. It answers before the other end's offer came, since
// this end's password is all that it takes.
func (c *checker) answer(from netip.AddrPort, m *stun.Message) bool {
	if !c.mine.named(m) {
		return false
	}
	c.mu.Lock()
	found := false
	defer func() {
		c.mu.Unlock()
		if found {
			c.found(pair{to: from, tentative: true})
		}
	}()
	var user stun.Username
	if c.theirs != nil && (user.GetFrom(m) != nil || user.String() != name(c.mine.User, c.theirs.User)) {
		return false
	}
	if !c.mine.proved(m) {
		return true // it uses this call's name, but not its password
	}
	response, err := c.mine.success(from, m)
	if err != nil {
		return true
	}
	i := slices.IndexFunc(c.checks, func(k *check) bool { return k.to == from })
	if i < 0 {
		if len(c.checks) >= 4*maxCandidates {
			return true
		}
		c.add(from)
		i = len(c.checks) - 1
	}
	// Whoever has the answer may send media: take it from then on.
	c.socket.WriteTo(response.Raw, from)
	// Its way to this end is open, and so is this one's to it, as a rule: a
	// triggered check, RFC 8445 §7.3.1.4.
	if c.theirs != nil && !c.checks[i].answered {
		c.send(c.checks[i])
		found = !c.tried && c.best == nil &&
			slices.ContainsFunc(c.theirs.Candidates, func(a netip.AddrPort) bool { return a.Addr() == from.Addr() })
		c.tried = c.tried || found
	}
	return true
}

// add makes an address one to check. Called with the lock held.
func (c *checker) add(to netip.AddrPort) {
	c.checks = append(c.checks, &check{to: to})
	c.heard(to)
}

// answered takes an answer. It counts only from the address that was asked
// (RFC 8445 §7.2.5.2.1) and with integrity.
func (c *checker) answered(from netip.AddrPort, m *stun.Message) bool {
	c.mu.Lock()
	k := c.byID[m.TransactionID]
	if k == nil {
		c.mu.Unlock()
		return false
	}
	key := stun.NewShortTermIntegrity(c.theirs.Password)
	var mapped stun.XORMappedAddress
	if k.answered || k.to != from || key.Check(m) != nil || mapped.GetFrom(m) != nil {
		c.mu.Unlock()
		return true
	}
	k.answered = true
	addr, _ := netip.AddrFromSlice(mapped.IP)
	p := pair{to: k.to, mapped: netip.AddrPortFrom(addr.Unmap(), uint16(mapped.Port)),
		host: k.to.Addr().IsPrivate() && slices.Contains(c.theirs.Candidates, k.to) && k.to != c.theirs.External}
	better := c.best == nil || p.host && !c.best.host
	if better {
		c.best = &p
	}
	c.mu.Unlock()
	if better {
		c.found(p)
	}
	return true
}

// begin takes the other end's offer, as far as it is usable, and sends the first
// round of checks: to
// the predicted ports before all others, since each new destination takes a
// port of this end's own box, and in the order in which the other end's box
// gives them out.
func (c *checker) begin(theirs offer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.theirs = &theirs
	list := slices.Clone(theirs.Predicted)
	for _, to := range theirs.Candidates {
		// What a box that maps each destination anew gave for a supernode is of
		// no use, and the others are.
		if len(theirs.Predicted) == 0 || to != theirs.External {
			list = append(list, to)
		}
	}
	for _, to := range list {
		if !slices.ContainsFunc(c.checks, func(k *check) bool { return k.to == to }) {
			c.add(to)
		}
	}
	c.round()
}

// round sends a request to every candidate that is still worth one. Called
// with the lock held.
func (c *checker) round() (sent int) {
	for _, k := range c.checks {
		worth := c.best == nil || !c.best.host && k.to.Addr().IsPrivate()
		if worth && !k.answered {
			c.send(k)
			sent++
		}
	}
	return sent
}

// send sends a candidate's request. Called with the lock held.
func (c *checker) send(k *check) {
	if k.request == nil {
		m, err := c.theirs.request(c.mine)
		if err != nil {
			return // a username of the other end's that is too long
		}
		k.request = m
		c.byID[m.TransactionID] = k
	}
	c.socket.WriteTo(k.request.Raw, k.to)
}

// run checks at the given pace after begin, until no pair could be better than
// the one that works, or ctx ends. The error says that none works.
func (c *checker) run(ctx context.Context, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.mu.Lock()
			sent, found := c.round(), c.best != nil
			c.mu.Unlock()
			if sent == 0 && found {
				return nil
			}
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.best != nil {
				return nil
			}
			return fmt.Errorf("none of %d candidates answers: %w", len(c.checks), context.Cause(ctx))
		}
	}
}

// hopeless says that no check can succeed between two ends' boxes: one maps
// each destination to a port that can't be known (RFC 4787's address- and
// port-dependent), and the other lets in only what comes from a known port.
func hopeless(mine, theirs offer) bool {
	const dependent = "address-and-port-dependent"
	lost := func(a, b offer) bool {
		return a.Mapping == dependent && len(a.Predicted) == 0 && b.Filtering == dependent
	}
	return !theirs.near(mine) && (lost(mine, theirs) || lost(theirs, mine))
}
