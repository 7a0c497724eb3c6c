package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// overload is how many times the rate is sent, for how long. A box may let
// some packets through at once before it counts, which is little of what it
// lets through in that time.
const (
	overload     = 2
	overloadTime = time.Second
)

// While a sender is held up, the box lets nothing through, and what it lets
// through at once after that is worth no more than savings (see the rules of
// udp_rate in package middlebox): the rest of that time doesn't count. Where
// that is half of all or more, it measures again, at most rateTries times.
const (
	savings   = 100 * time.Millisecond
	rateTries = 10
)

// Rate measures how many UDP packets per second of one host inside get out,
// and how many get in to it, by sending twice a given number. It returns what
// arrived, or 0 if all did.
func Rate(ctx context.Context, w *Watch, s Subject, perSecond int) (outward, inward int, err error) {
	p := begin(ctx, w, s)
	inside, outside := p.udp(p.LAN[1]), p.udp(p.WAN[1])
	outward = p.rate(inside, outside, outside.at(), perSecond)
	if p.err == nil {
		p.until(time.Now().Add(p.Pace)) // until one more may pass
		inward = p.rate(outside, inside, p.observe(inside, outside), perSecond)
	}
	if err := p.end(); err != nil {
		return 0, 0, fmt.Errorf("measure the rate of UDP: %w", err)
	}
	return outward, inward, nil
}

// rate measures what gets from one socket to another that has an address.
func (p *prober) rate(from, to *socket, address netip.AddrPort, perSecond int) int {
	for range rateTries {
		var sent []*packet
		begun := time.Now()
		last, held := begun, time.Duration(0)
		for p.err == nil && time.Since(begun) < overloadTime {
			for due := int(time.Since(begun).Seconds() * overload * float64(perSecond)); len(sent) < due && p.err == nil; {
				one, err := from.send(address)
				p.fail(err)
				sent = append(sent, one)
			}
			p.until(time.Now().Add(time.Millisecond))
			now := time.Now()
			held, last = held+max(0, now.Sub(last)-savings), now
		}
		took := time.Since(begun)
		if p.err == nil && p.udpPasses {
			p.fail(p.fence(p.ctx))
		}
		if p.err == nil {
			p.fail(p.drain())
		}
		if p.err != nil {
			return 0
		}
		if held > took/2 {
			continue
		}
		arrived := 0
		for _, one := range sent {
			if one.known().at == to {
				arrived++
			}
		}
		if arrived == len(sent) {
			return 0
		}
		return int(float64(arrived) / (took - held).Seconds())
	}
	p.fail(fmt.Errorf("%d times in a row, the sender was held up for half of %v", rateTries, overloadTime))
	return 0
}
