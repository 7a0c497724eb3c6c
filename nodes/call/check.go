package call

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/stun/v3"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/network"
)

// checker finds out over which addresses two ends reach each other: STUN
// Binding requests with short-term credentials (RFC 8489 §9.1) to all of the
// other end's candidates, answered to the address that they really came from,
// which is a new candidate if it was unknown (peer-reflexive, RFC 8445
// §7.3.1.3). A pair works when its own request was answered.
type checker struct {
	socket   *datagram.Socket
	mine     offer
	theirs   offer
	interval time.Duration

	mu         sync.Mutex
	candidates []netip.AddrPort
	working    netip.AddrPort
	found      chan struct{} // closed when working is set
	heard      chan struct{} // capacity 1: candidates grew
}

// newOffer describes this end's socket with fresh credentials. Host addresses
// that are private go along for a peer behind the same box (RFC 8445 §5.1.1).
func newOffer(socket *datagram.Socket, nw network.Network, reach directReach) offer {
	o := offer{UDP: reach.udp, Public: reach.public, External: reach.external, User: rand.Text(), Password: rand.Text()}
	if !reach.udp {
		return o
	}
	if reach.external.IsValid() {
		o.Candidates = append(o.Candidates, reach.external)
	}
	port := socket.LocalAddr().Port()
	for _, addr := range nw.Addrs() {
		host := netip.AddrPortFrom(addr, port)
		if len(o.Candidates) < maxCandidates && !slices.Contains(o.Candidates, host) {
			o.Candidates = append(o.Candidates, host)
		}
	}
	return o
}

// directReach is what login found out about this end's UDP.
type directReach struct {
	udp, public bool
	external    netip.AddrPort
}

// newChecker prepares the checks; begin answers the other end's requests from
// then on.
func newChecker(socket *datagram.Socket, mine, theirs offer, interval time.Duration) *checker {
	c := &checker{
		socket: socket, mine: mine, theirs: theirs, interval: interval,
		found: make(chan struct{}), heard: make(chan struct{}, 1),
	}
	for _, to := range theirs.Candidates[:min(len(theirs.Candidates), maxCandidates)] {
		// A private address means nothing beyond its own box.
		if to.IsValid() && (!to.Addr().IsPrivate() || mine.External.Addr() == theirs.External.Addr()) {
			c.candidates = append(c.candidates, to)
		}
	}
	return c
}

// begin answers the other end's requests until cancel is called.
func (c *checker) begin() (cancel func()) { return c.socket.HandleSTUN(c.answer) }

// name is the USERNAME of requests from one end to the other, RFC 8445 §7.2.2.
func name(to, from offer) string { return to.User + ":" + from.User }

// answer takes a request of the other end's. It runs in the socket's reader.
func (c *checker) answer(from netip.AddrPort, m *stun.Message) bool {
	var user stun.Username
	if m.Type != stun.BindingRequest || user.GetFrom(m) != nil || user.String() != name(c.mine, c.theirs) {
		return false
	}
	key := stun.NewShortTermIntegrity(c.mine.Password)
	if key.Check(m) != nil || stun.Fingerprint.Check(m) != nil {
		return true // it uses this call's name, but not its password
	}
	response, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())}, key, stun.Fingerprint)
	if err != nil {
		return true
	}
	c.socket.WriteTo(response.Raw, from)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.candidates, from) && len(c.candidates) < 2*maxCandidates {
		c.candidates = append(c.candidates, from)
		select {
		case c.heard <- struct{}{}:
		default:
		}
	}
	return true
}

// run checks all candidates at the profile's pace until one works or ctx ends.
func (c *checker) run(ctx context.Context) (netip.AddrPort, error) {
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	ids := map[netip.AddrPort]*transaction{}
	answers := make(chan netip.AddrPort, 1)
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer tasks.Wait()
	defer cancel()
	for {
		c.mu.Lock()
		candidates := slices.Clone(c.candidates)
		c.mu.Unlock()
		for _, to := range candidates {
			t := ids[to]
			if t == nil {
				var err error
				if t, err = c.transaction(); err != nil {
					return netip.AddrPort{}, err
				}
				ids[to] = t
				tasks.Go(func() { c.await(ctx, t, to, answers) })
			}
			c.socket.WriteTo(t.request, to)
		}
		select {
		case to := <-answers:
			c.mu.Lock()
			c.working = to
			close(c.found)
			c.mu.Unlock()
			return to, nil
		case <-ticker.C:
		case <-c.heard:
		case <-ctx.Done():
			return netip.AddrPort{}, fmt.Errorf("none of %d candidates answers: %w", len(candidates), context.Cause(ctx))
		}
	}
}

// transaction is the request to one candidate; its copies are the same.
type transaction struct {
	request []byte
	answers <-chan datagram.STUNAnswer
	cancel  func()
}

func (c *checker) transaction() (*transaction, error) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(name(c.theirs, c.mine)),
		stun.NewShortTermIntegrity(c.theirs.Password), stun.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("make STUN request: %w", err)
	}
	t := &transaction{request: m.Raw}
	t.answers, t.cancel = c.socket.AwaitSTUN(m.TransactionID)
	return t, nil
}

// await waits for the answer to one candidate's request. It counts only from
// the address that was asked (RFC 8445 §7.2.5.2.1) and with integrity.
func (c *checker) await(ctx context.Context, t *transaction, to netip.AddrPort, answers chan<- netip.AddrPort) {
	defer t.cancel()
	for {
		select {
		case a := <-t.answers:
			key := stun.NewShortTermIntegrity(c.theirs.Password)
			if a.From != to || a.Message.Type != stun.BindingSuccess || key.Check(a.Message) != nil {
				continue
			}
			select {
			case answers <- to:
			default:
			}
			return
		case <-ctx.Done():
			return
		}
	}
}
