package datagram

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"gauntlet/nodes/identity"
)

const (
	// maxSources bounds the sources that are limited one by one. When the
	// table is full it is emptied, which gives each source a new burst at most.
	maxSources = 4096
	// maxNonces bounds the nonces that are remembered. When it is reached the
	// oldest are forgotten and nothing as old as they is taken any more.
	maxNonces = 8192
	// maxStored bounds the answers kept for lost ones, storedFor how long: a
	// little longer than a request is retransmitted.
	maxStored = 512
	storedFor = 5 * time.Second
	// maxCertificates bounds the certificates that are remembered by hash.
	maxCertificates = 512
)

// limiter is a token bucket for each source address.
type limiter struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	sources map[netip.Addr]*rate.Limiter
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{rate: rate.Limit(perSecond), burst: burst, sources: map[netip.Addr]*rate.Limiter{}}
}

func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.sources[from]
	if b == nil {
		if len(l.sources) >= maxSources {
			clear(l.sources)
		}
		b = rate.NewLimiter(l.rate, l.burst)
		l.sources[from] = b
	}
	return b.AllowN(now, 1)
}

// seenNonce is a nonce that came, and the answer if there is one yet.
type seenNonce struct {
	nonce  [12]byte
	sent   time.Time
	came   time.Time
	from   netip.AddrPort
	answer []byte
}

// replay refuses datagrams that came before or are too old to tell.
type replay struct {
	window time.Duration

	mu     sync.Mutex
	byKey  map[[12]byte]*seenNonce
	order  []*seenNonce // as they came
	floor  time.Time    // nothing sent at or before this is taken
	stored []*seenNonce // those with an answer, as they came
}

func newReplay(window time.Duration) *replay {
	return &replay{window: window, byKey: map[[12]byte]*seenNonce{}}
}

// check says whether a datagram with this nonce, sent at that time, is new. If
// it is a copy of one from the same address, the answer stored for it is
// returned, if any.
func (r *replay) check(nonce [12]byte, sent time.Time, from netip.AddrPort, now time.Time) (fresh bool, answer []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	if e := r.byKey[nonce]; e != nil {
		if e.from == from {
			return false, e.answer
		}
		return false, nil
	}
	if sent.Before(now.Add(-r.window)) || sent.After(now.Add(r.window)) || !sent.After(r.floor) {
		return false, nil
	}
	if len(r.order) >= maxNonces {
		r.drop()
	}
	e := &seenNonce{nonce: nonce, sent: sent, came: now, from: from}
	r.byKey[nonce] = e
	r.order = append(r.order, e)
	return true, nil
}

// forget drops what is too old to be taken again, and answers that nobody
// will ask for. Called with the lock held.
func (r *replay) forget(now time.Time) {
	for len(r.order) > 0 && r.order[0].came.Before(now.Add(-2*r.window)) {
		delete(r.byKey, r.order[0].nonce)
		r.order = r.order[1:]
	}
	for len(r.stored) > 0 && (len(r.stored) > maxStored || r.stored[0].came.Before(now.Add(-storedFor))) {
		r.stored[0].answer = nil
		r.stored = r.stored[1:]
	}
}

// drop forgets the one that came first and raises the floor above it.
func (r *replay) drop() {
	e := r.order[0]
	r.order = r.order[1:]
	delete(r.byKey, e.nonce)
	if e.sent.After(r.floor) {
		r.floor = e.sent
	}
}

// store keeps the answer to a request.
func (r *replay) store(nonce [12]byte, answer []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byKey[nonce]; e != nil {
		e.answer = answer
		r.stored = append(r.stored, e)
	}
}

// certificates remembers verified certificates by their hash, the oldest
// given up for a new one.
type certificates struct {
	mu     sync.Mutex
	byHash map[[32]byte]*identity.Certificate
	order  [][32]byte
}

func newCertificates() *certificates {
	return &certificates{byHash: map[[32]byte]*identity.Certificate{}}
}

func (c *certificates) get(hash [32]byte) *identity.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byHash[hash]
}

func (c *certificates) put(hash [32]byte, cert *identity.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byHash[hash]; ok {
		return
	}
	if len(c.order) >= maxCertificates {
		delete(c.byHash, c.order[0])
		c.order = c.order[1:]
	}
	c.byHash[hash] = cert
	c.order = append(c.order, hash)
}
