package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/nodes/control"
)

// step drives one step. It returns an error only where nothing more can be
// driven after it.
func (r *single) step(ctx context.Context, i int) error {
	st := &r.Steps[i]
	switch {
	case st.Login != nil:
		for _, d := range r.planned[i] {
			if err := r.login(ctx, st, d); err != nil {
				return err
			}
		}
		return nil
	case st.Call != nil:
		return r.call(ctx, st, r.planned[i][0], r.planned[i][1])
	case st.Change != nil:
		b, err := st.Change.Behaviour()
		if err != nil {
			return err
		}
		return errors.Join(r.recorder.BeforeChange(st.Change.Box), r.internet.Change(st.Change.Box, b, st.Change.Label()))
	case st.Reboot != nil:
		return errors.Join(r.recorder.BeforeChange(st.Reboot.Box), r.internet.Reset(st.Reboot.Box))
	case st.Readdress != nil:
		return errors.Join(r.recorder.BeforeChange(st.Readdress.Box), r.internet.Readdress(st.Readdress.Box))
	default:
		return r.pair(ctx, st, r.planned[i][0])
	}
}

// plan makes the checks of a step, as they are if it is never driven.
func (r *single) plan(st *scenario.Step) []*driven {
	one := func(part, caller, callee string, expected verdict.Expectation) *driven {
		c := report.Check{
			ID: r.ID + "/" + st.Kind(), Scenario: r.ID, Function: st.Kind(),
			Claims: append([]string{}, r.Claimed(st)...), Expected: expected, Evidence: []string{},
		}
		if part != "" {
			c.ID += "/" + part
		}
		if st.Exchange != nil {
			c.Function = st.Exchange.Function
			c.ID = r.ID + "/" + c.Function
		} else if st.Call != nil {
			c.Function = "call " + part
		}
		return &driven{check: c, caller: caller, callee: callee, exchange: notDriven}
	}
	switch {
	case st.Login != nil:
		var all []*driven
		for _, name := range st.Login {
			all = append(all, one(name, name, r.Holding("login")[0], st.Expect.Expectation))
		}
		return all
	case st.Call != nil:
		return []*driven{
			one("signalling", st.Call.Caller, st.Call.Callee, *st.Expect.Signalling),
			one("media", st.Call.Caller, st.Call.Callee, *st.Expect.Media),
		}
	case st.Search != nil:
		return []*driven{one("", st.Search.Caller, st.Search.Callee, st.Expect.Expectation)}
	case st.Presence != nil:
		return []*driven{one("", st.Presence.Caller, st.Presence.Callee, st.Expect.Expectation)}
	case st.Exchange != nil:
		return []*driven{one("", st.Exchange.Caller, st.Exchange.Callee, st.Expect.Expectation)}
	case st.Conference != nil:
		return []*driven{one("", st.Conference.Starter, st.Conference.Members[0], st.Expect.Expectation)}
	}
	return nil // something happens to a box, and nothing is judged
}

// offered notes which boxes stand before the two ends now, and says whether
// the caller's node has the function at all.
func (r *single) offered(d *driven, function string) bool {
	d.check.CallerBox, d.check.CalleeBox = r.internet.Label(d.caller), r.internet.Label(d.callee)
	d.claim.NotOffered = !r.nodes.offers(d.caller, function)
	return !d.claim.NotOffered
}

// window drives a function while its packets are told apart from all others:
// the overlay is at rest before, and everything captured has been read after.
func (r *single) window(ctx context.Context, d *driven, e evidence.Exchange, limit time.Duration, drive func(context.Context) error) error {
	r.rest(ctx, d)
	if err := r.recorder.Conntrack(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from %s within %v", d.caller, limit))
	defer cancel()
	e.ID, e.Function, e.Caller, e.Callee = d.check.ID, d.check.Function, d.caller, d.callee
	e.From = time.Now()
	if e.Since.IsZero() {
		e.Since = e.From
	}
	err := drive(limited)
	e.To = time.Now()
	d.check.Seconds = e.To.Sub(e.From).Seconds()
	return errors.Join(r.keep(ctx, d, e), r.outcome(d, err))
}

// keep stores an exchange and what the routers know at its end.
func (r *single) keep(ctx context.Context, d *driven, e evidence.Exchange) error {
	d.exchange = len(r.exchanges)
	r.exchanges = append(r.exchanges, e)
	ctx, cancel := context.WithTimeoutCause(ctx, syncTimeout, errors.New("the capture did not catch up"))
	defer cancel()
	err := errors.Join(r.recorder.Sync(ctx), r.recorder.Conntrack())
	if err != nil {
		d.claim.Unseen = append(d.claim.Unseen, err.Error())
	}
	return err
}

// rest waits until the overlay is quiet.
func (r *single) rest(ctx context.Context, d *driven) {
	ctx, cancel := context.WithTimeoutCause(ctx, restTimeout, fmt.Errorf("new flows kept appearing for %v", restTimeout))
	defer cancel()
	if err := r.recorder.Rest(ctx, restQuiet); err != nil {
		d.claim.Unseen = append(d.claim.Unseen, fmt.Sprintf("the overlay did not come to rest before: %v", err))
	}
}

// outcome sorts the ways in which a function can end. Only a node that can't
// be driven any more is an error.
func (r *single) outcome(d *driven, err error) error {
	var failed *control.Failed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrNotOffered):
		d.problem = "the node says that it offers this, and then that it does not"
		return nil
	case errors.As(err, &failed):
		d.claim.NodeError = failed.Reason
		return nil
	}
	d.problem = err.Error() + r.silent(d.caller, err)
	return fmt.Errorf("%s: %s", d.check.ID, firstLine(d.problem))
}

// payload is a random number of bytes of a function's payload, unusual enough
// to be told apart by its size: 32 to 48 KiB.
func (r *single) payload(size int) []byte {
	if size == 0 {
		size = 32<<10 + 1 + 2*r.random.IntN(8<<10)
	}
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(r.random.Uint32())
	}
	return p
}

func limitOf(st *scenario.Step) time.Duration {
	if st.Within > 0 {
		return st.Within
	}
	return defaultLimit
}
