package model

import (
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// rateKey is whose UDP is counted, and which way it goes.
type rateKey struct {
	inside netip.Addr
	to     Side
}

// bucket holds what an address may send at once, in the time that it takes to
// get that again.
type bucket struct{ filled, last time.Duration }

// exceeds counts a datagram and says whether it is beyond the rate that an
// internal address has, one way.
func (b *Box) exceeds(inside netip.Addr, to Side) bool {
	if b.behaviour.UDPRate == 0 {
		return false
	}
	cost := time.Second / time.Duration(b.behaviour.UDPRate)
	full := cost * time.Duration(middlebox.UDPBurst(b.behaviour.UDPRate))
	k := rateKey{inside, to}
	u, known := b.rates[k]
	if u.filled = min(full, u.filled+b.now-u.last); !known {
		u.filled = full
	}
	u.last = b.now
	over := u.filled < cost
	if !over {
		u.filled -= cost
	}
	b.rates[k] = u
	return over
}
