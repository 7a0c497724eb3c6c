package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// Ages at which mappings are tried, in parts of the timer, and how many there
// are. Each mapping is tried once, since a packet that gets in may refresh it.
const (
	youngest = 0.5
	oldest   = 1.5
	ages     = 21
)

// When a mapping is refreshed and when tried after that, in parts of the timer:
// without the refresh it is dead by then, with it alive.
const (
	refreshed = 0.6
	tried     = 1.35
)

// Timers measures how long UDP mappings live without a packet, and whether
// packets from outside keep them alive, on boxes whose timer was set to the
// given time. It takes one and a half times that.
func Timers(ctx context.Context, w *Watch, s Subject, set time.Duration) (Timing, string, error) {
	p := begin(ctx, w, s)
	var t Timing
	var refresh string
	if p.udpPasses {
		t, refresh = p.timers(set)
	} else {
		p.fail(fmt.Errorf("UDP does not pass, so it has no timers"))
	}
	if err := p.end(); err != nil {
		return Timing{}, "", fmt.Errorf("measure timers: %w", err)
	}
	return t, refresh, nil
}

// mapping is one mapping that is tried once.
type mapping struct {
	inside, asked *socket
	outside       netip.AddrPort
	made          time.Time
}

func (p *prober) fresh() mapping {
	m := mapping{inside: p.udp(p.LAN[0]), asked: p.udp(p.WAN[0])}
	m.outside = p.observe(m.inside, m.asked)
	m.made = time.Now()
	return m
}

// alive says whether the endpoint that was asked still gets in, without any
// packet from inside.
func (p *prober) alive(m mapping) bool { return p.reaches(m.asked, m.outside, m.inside) }

func (p *prober) timers(set time.Duration) (Timing, string) {
	t := Timing{Set: set.Seconds()}
	part := func(x float64) time.Duration { return time.Duration(x * float64(set)) }
	mappings := make([]mapping, ages)
	for i := range mappings {
		mappings[i] = p.fresh()
	}
	in, out := p.fresh(), p.fresh()
	var inAlive, outAlive bool
	type event struct {
		at time.Time
		do func()
	}
	var events []event
	for i, m := range mappings {
		age := part(youngest + (oldest-youngest)*float64(i)/(ages-1))
		events = append(events, event{m.made.Add(age), func() {
			before := time.Since(m.made).Seconds()
			if p.alive(m) {
				t.Alive = max(t.Alive, before)
			} else if after := time.Since(m.made).Seconds(); t.Dead == 0 || after < t.Dead {
				t.Dead = after
			}
		}})
	}
	events = append(events,
		event{in.made.Add(part(refreshed)), func() { p.alive(in) }},
		event{out.made.Add(part(refreshed)), func() { p.observe(out.inside, out.asked) }},
		event{in.made.Add(part(tried)), func() { inAlive = p.alive(in) }},
		event{out.made.Add(part(tried)), func() { outAlive = p.alive(out) }})
	for len(events) > 0 && p.err == nil {
		next := 0
		for i := range events {
			if events[i].at.Before(events[next].at) {
				next = i
			}
		}
		p.until(events[next].at)
		events[next].do()
		events = append(events[:next], events[next+1:]...)
	}
	if t.Dead == 0 {
		return t, "" // without an end there is nothing to refresh
	}
	switch {
	case inAlive && outAlive:
		return t, string(middlebox.RefreshBoth)
	case outAlive:
		return t, string(middlebox.RefreshOutbound)
	case inAlive:
		return t, "inbound"
	}
	return t, mappingNone
}

func (p *prober) until(at time.Time) {
	wait := time.NewTimer(time.Until(at))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-p.ctx.Done():
		p.fail(context.Cause(p.ctx))
	}
}
