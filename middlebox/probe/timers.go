package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/middlebox"
)

// Ages at which mappings and connections are tried, in parts of the timer, and how many there
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

// streamAges is ages for TCP connections of each phase.
const streamAges = 11

// Told is what the timers of a box were set to for their measurement; 0 is that
// a timer is not to be measured.
type Told struct {
	UDP, TCPEstablished, TCPTransitory time.Duration
}

// Timers measures how long UDP mappings live without a packet, whether packets
// from outside keep them alive, and how long TCP connections get an answer from
// outside: established ones, and those that are transitory (RFC 5382, REQ-5),
// half-open or half-closed. The timers of the boxes were set as told. It takes
// one and a half times the longest of them, and sets Timing, Refresh and the
// timings of TCP. What doesn't pass is left alone.
func Timers(ctx context.Context, w *Watch, s Subject, told Told, m *Properties) error {
	p := begin(ctx, w, s)
	if !p.udpPasses {
		told.UDP = 0
	}
	if m.TCPFiltering == "" { // which only TCP that passes gives
		told.TCPEstablished, told.TCPTransitory = 0, 0
	}
	p.timers(told, m)
	if err := p.end(); err != nil {
		return fmt.Errorf("measure timers: %w", err)
	}
	return nil
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

// timers tries UDP once more where the machine was too busy for a mapping to be
// refreshed and tried in time.
func (p *prober) timers(told Told, m *Properties) {
	for try := 1; p.err == nil; try++ {
		if p.timersOnce(told, m) {
			break
		} else if try == timerTries {
			p.fail(fmt.Errorf("%d times in a row, packets were sent too late for a timer of %v", try, told.UDP))
		}
		told.TCPEstablished, told.TCPTransitory = 0, 0 // which are known
	}
}

// event is something to be done at a time. What is urgent means something only
// at that time; of all else, it is known how late it was.
type event struct {
	at     time.Time
	do     func()
	urgent bool
}

// next returns the index of what is to be done next: first what is urgent and
// due, then what is due first.
func next(events []event, now time.Time) int {
	first := 0
	before := func(a, b event) bool {
		if urgentA, urgentB := a.urgent && !a.at.After(now), b.urgent && !b.at.After(now); urgentA != urgentB {
			return urgentA
		}
		return a.at.Before(b.at)
	}
	for i := range events {
		if before(events[i], events[first]) {
			first = i
		}
	}
	return first
}

// timersOnce measures all timers at the same time. It says whether nothing was
// too late.
func (p *prober) timersOnce(told Told, m *Properties) bool {
	var events []event
	for _, t := range []struct {
		told time.Duration
		how  phase
		into **Timing
	}{
		{told.TCPEstablished, established, &m.TCPEstablishedTiming},
		{told.TCPTransitory, halfOpen, &m.TCPHalfOpenTiming},
		{told.TCPTransitory, halfClosed, &m.TCPHalfClosedTiming},
	} {
		if t.told > 0 {
			*t.into = &Timing{Set: t.told.Seconds()}
			events = append(events, p.streamEvents(*t.into, t.told, t.how)...)
		}
	}
	refreshed := func() (string, bool) { return "", true }
	if told.UDP > 0 {
		m.Timing = &Timing{Set: told.UDP.Seconds()}
		var more []event
		more, refreshed = p.mappingEvents(m.Timing, told.UDP)
		events = append(events, more...)
	}
	for len(events) > 0 && p.err == nil {
		i := next(events, time.Now())
		p.until(events[i].at)
		events[i].do()
		events = append(events[:i], events[i+1:]...)
	}
	if m.Timing == nil || m.Timing.Dead == 0 {
		return true // without an end there is nothing to refresh
	}
	var inTime bool
	m.Refresh, inTime = refreshed()
	return inTime
}

// schedule tries something of each of some ages, made at a time that lies
// between two, and enters into a timing what was alive and what dead.
func schedule(t *Timing, set time.Duration, earliest, made time.Time, i, n int, alive func() bool) event {
	age := youngest + (oldest-youngest)*float64(i)/float64(n-1)
	return event{at: made.Add(time.Duration(age * float64(set))), do: func() {
		before := time.Since(made).Seconds()
		if alive() {
			t.Alive = max(t.Alive, before)
		} else if after := time.Since(earliest).Seconds(); t.Dead == 0 || after < t.Dead {
			t.Dead = after
		}
	}}
}

// streamEvents are the tries of TCP connections of a phase.
func (p *prober) streamEvents(t *Timing, set time.Duration, how phase) (events []event) {
	for i := range streamAges {
		c := p.connectionTo(p.LAN[0], p.WAN[0], how)
		events = append(events, schedule(t, set, c.earliest, c.made, i, streamAges, func() bool { return p.answers(c, how) }))
	}
	return events
}

// mappingEvents are the tries of UDP mappings, and of two that are refreshed from
// one side each. In the end, the function says by which side they were kept, and
// whether both were refreshed and tried in time.
func (p *prober) mappingEvents(t *Timing, set time.Duration) ([]event, func() (string, bool)) {
	part := func(x float64) time.Duration { return time.Duration(x * float64(set)) }
	var events []event
	for i := range ages {
		m := p.fresh()
		events = append(events, schedule(t, set, m.earliest, m.made, i, ages, func() bool { return p.alive(m) }))
	}
	inTime := true
	refreshes := func(send func(mapping)) *bool {
		m := p.fresh()
		var alive bool
		var sent time.Time
		events = append(events,
			event{at: m.made.Add(part(refreshed)), urgent: true, do: func() {
				sent = time.Now()
				send(m)
				inTime = inTime && time.Since(m.earliest) < part(1-margin)
			}},
			event{at: m.made.Add(part(tried)), urgent: true, do: func() {
				alive = p.alive(m)
				inTime = inTime && time.Since(sent) < part(1-margin)
			}})
		return &alive
	}
	in := refreshes(func(m mapping) { p.alive(m) })
	out := refreshes(func(m mapping) { p.observe(m.inside, m.asked) })
	return events, func() (string, bool) {
		switch {
		case *in && *out:
			return string(middlebox.RefreshBoth), inTime
		case *out:
			return string(middlebox.RefreshOutbound), inTime
		case *in:
			return "inbound", inTime
		}
		return mappingNone, inTime
	}
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
