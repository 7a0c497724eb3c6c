package probe

import (
	"context"
	"fmt"
	"slices"

	"gauntlet/middlebox"
)

// Block measures how many external ports one host inside gets, by taking them
// all: it stops once as many packets in a row were dropped for lack of a port
// as ports were given, when one that is left would have been found but for one
// time in e^16 (each packet tries 16 ports). The host has no port left then. It
// returns how far they reach, which is more where they don't follow each other,
// and more than max where they have no end before.
func Block(ctx context.Context, w *Watch, s Subject, max int) (int, error) {
	p := begin(ctx, w, s)
	n := p.block(max)
	if err := p.end(); err != nil {
		return 0, fmt.Errorf("measure the block of ports: %w", err)
	}
	return n, nil
}

func (p *prober) block(max int) int {
	to := p.udp(p.WAN[1])
	given := map[uint16]bool{}
	for failed := 0; p.err == nil && len(given) <= max && failed <= len(given)+1; {
		from := p.udp(p.LAN[1])
		if p.err != nil {
			break
		}
		sent := p.send(from, to.local)
		if p.err != nil {
			break
		}
		f, err := sent.await(p.ctx, sent.fated)
		p.fail(err)
		switch {
		case f.at == to:
			given[f.from.Port()] = true
			failed = 0
		case f.dropped != nil && f.dropped.Rule == middlebox.NoPortRule:
			failed++
		default:
			p.fail(fmt.Errorf("from %v to %v: %v", from.local, to.local, f))
		}
		p.sockets = p.sockets[:len(p.sockets)-1]
		from.close()
	}
	if p.err != nil || len(given) == 0 {
		return 0
	}
	if len(given) > max {
		return len(given)
	}
	var ports []uint16
	for port := range given {
		ports = append(ports, port)
	}
	return int(slices.Max(ports)) - int(slices.Min(ports)) + 1
}
