package probe

import (
	"context"
	"fmt"
	"time"
)

// overload is how many times the rate is sent, for how long. A box may let
// some packets through at once before it counts, which is little of what it
// lets through in that time.
const (
	overload     = 2
	overloadTime = time.Second
)

// Rate measures how many UDP packets per second of one host inside get
// through, by sending twice a given number. It returns what arrived, or 0 if
// all did.
func Rate(ctx context.Context, w *Watch, s Subject, perSecond int) (int, error) {
	p := begin(ctx, w, s)
	rate := p.rate(perSecond)
	if err := p.end(); err != nil {
		return 0, fmt.Errorf("measure the rate of UDP: %w", err)
	}
	return rate, nil
}

func (p *prober) rate(perSecond int) int {
	from, to := p.udp(p.LAN[1]), p.udp(p.WAN[1])
	var sent []*packet
	begun := time.Now()
	for p.err == nil && time.Since(begun) < overloadTime {
		for due := int(time.Since(begun).Seconds() * overload * float64(perSecond)); len(sent) < due && p.err == nil; {
			one, err := from.send(to.local)
			p.fail(err)
			sent = append(sent, one)
		}
		p.until(time.Now().Add(time.Millisecond))
	}
	took := time.Since(begun)
	if p.err == nil && p.udpPasses {
		p.fail(p.fence(p.ctx))
	}
	if p.err == nil {
		p.fail(p.drain())
	}
	arrived := 0
	for _, one := range sent {
		if p.err == nil && one.known().at == to {
			arrived++
		}
	}
	if arrived == len(sent) {
		return 0
	}
	return int(float64(arrived) / took.Seconds())
}
