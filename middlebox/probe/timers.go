package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// Ages at which mappings are tried, in parts of the timer, and how many there
// are: a bisection, all of whose steps are taken at once. Each mapping is tried
// once, since a packet that gets in may refresh it.
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

// margin is how near to its end a timer is still taken to run for sure, in
// parts of it, and timerTries how often a measurement begins anew that came
// nearer.
const (
	margin     = 0.05
	timerTries = 4
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

// mapping is one mapping that is tried once. When the box made it lies between
// two times, however late this goroutine is.
type mapping struct {
	inside, asked  *socket
	outside        netip.AddrPort
	earliest, made time.Time
}

func (p *prober) fresh() mapping {
	m := mapping{inside: p.udp(p.LAN[0]), asked: p.udp(p.WAN[0]), earliest: time.Now()}
	m.outside = p.observe(m.inside, m.asked)
	m.made = time.Now()
	return m
}

// alive says whether the endpoint that was asked still gets in, without any
// packet from inside.
func (p *prober) alive(m mapping) bool { return p.reaches(m.asked, m.outside, m.inside) }

// timers tries once more where the machine was too busy for a mapping to be
// refreshed and tried in time.
func (p *prober) timers(set time.Duration) (t Timing, refresh string) {
	for try := 1; p.err == nil; try++ {
		var inTime bool
		if t, refresh, inTime = p.timersOnce(set); inTime {
			break
		} else if try == timerTries {
			p.fail(fmt.Errorf("%d times in a row, packets were sent too late for a timer of %v", try, set))
		}
	}
	return t, refresh
}

func (p *prober) timersOnce(set time.Duration) (Timing, string, bool) {
	t := Timing{Set: set.Seconds()}
	part := func(x float64) time.Duration { return time.Duration(x * float64(set)) }
	mappings := make([]mapping, ages)
	for i := range mappings {
		mappings[i] = p.fresh()
	}
	in, out := p.fresh(), p.fresh()
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
			} else if after := time.Since(m.earliest).Seconds(); t.Dead == 0 || after < t.Dead {
				t.Dead = after
			}
		}})
	}
	inTime := true
	refreshes := func(m mapping, send func(mapping)) *bool {
		var alive bool
		var sent time.Time
		events = append(events,
			event{m.made.Add(part(refreshed)), func() {
				sent = time.Now()
				send(m)
				inTime = inTime && time.Since(m.earliest) < part(1-margin)
			}},
			event{m.made.Add(part(tried)), func() {
				alive = p.alive(m)
				inTime = inTime && time.Since(sent) < part(1-margin)
			}})
		return &alive
	}
	inAlive := refreshes(in, func(m mapping) { p.alive(m) })
	outAlive := refreshes(out, func(m mapping) { p.observe(m.inside, m.asked) })
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
		return t, "", true // without an end there is nothing to refresh
	}
	switch {
	case *inAlive && *outAlive:
		return t, string(middlebox.RefreshBoth), inTime
	case *outAlive:
		return t, string(middlebox.RefreshOutbound), inTime
	case *inAlive:
		return t, "inbound", inTime
	}
	return t, mappingNone, inTime
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
