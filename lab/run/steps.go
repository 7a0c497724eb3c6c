package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/scenario"
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
		return r.call(ctx, st, i+1, r.planned[i])
	case st.Action() != "":
		return r.intervene(&st.Intervention, st.Target(), i+1)
	default:
		return r.pair(ctx, st, r.planned[i][0])
	}
}

// change has a step, counted from 1, change a box, and sends a canary through it
// as it is now.
func (r *single) change(c *scenario.BoxChange, step int) error {
	b, err := c.Behaviour()
	if err == nil {
		err = errors.Join(r.recorder.BeforeChange(c.Box), r.internet.Change(c.Box, b, c.Label()))
	}
	if err == nil && r.options.Turned != nil {
		err = r.options.Turned(r.internet)
	}
	if err != nil {
		return err
	}
	return r.sendCanaryThrough(c.Box, step)
}

// offered notes which boxes stand before the two ends now, and says whether
// the caller's node has the function at all.
func (r *single) offered(d *driven, function string) bool {
	d.record.CallerBox, d.record.CalleeBox = r.internet.Label(d.Caller), r.internet.Label(d.Callee)
	d.record.NotOffered = !r.nodes.offers(d.Caller, function)
	return !d.record.NotOffered
}

// window drives a function while its packets are told apart from all others:
// the overlay is at rest before, and everything captured has been read after.
func (r *single) window(ctx context.Context, d *driven, e evidence.Exchange, limit time.Duration, drive func(context.Context) error) error {
	r.rest(ctx, d)
	if err := r.recorder.Conntrack(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from %s within %v", d.Caller, limit))
	defer cancel()
	e.ID, e.Function, e.Caller, e.Callee = d.Check.ID, d.Check.Function, d.Caller, d.Callee
	e.From = time.Now()
	if e.Since.IsZero() {
		e.Since = e.From
	}
	err := drive(limited)
	e.To = time.Now()
	d.record.Seconds = e.To.Sub(e.From).Seconds()
	return errors.Join(r.keep(ctx, d, e), r.outcome(d, err))
}

// keep stores an exchange and what the routers know at its end.
func (r *single) keep(ctx context.Context, d *driven, e evidence.Exchange) error {
	d.record.Exchange = len(r.exchanges)
	r.exchanges = append(r.exchanges, e)
	ctx, cancel := context.WithTimeoutCause(ctx, syncTimeout, errors.New("the capture did not catch up"))
	defer cancel()
	err := errors.Join(r.recorder.Sync(ctx), r.recorder.Conntrack())
	if err != nil {
		d.record.Unseen = append(d.record.Unseen, err.Error())
	}
	return err
}

// rest waits until the overlay is quiet.
func (r *single) rest(ctx context.Context, d *driven) {
	ctx, cancel := context.WithTimeoutCause(ctx, restTimeout, fmt.Errorf("new flows kept appearing for %v", restTimeout))
	defer cancel()
	if err := r.recorder.Rest(ctx, restQuiet); err != nil {
		d.record.Unseen = append(d.record.Unseen, fmt.Sprintf("the overlay did not come to rest before: %v", err))
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
		d.record.Problem = "the node says that it offers this, and then that it does not"
		return nil
	case errors.As(err, &failed):
		d.record.NodeError = failed.Reason
		return nil
	}
	d.record.Problem = err.Error() + r.silent(d.Caller, err)
	return fmt.Errorf("%s: %s", d.Check.ID, firstLine(d.record.Problem))
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
	if st.Within != nil {
		return *st.Within
	}
	return defaultLimit
}

// silent is the end of a node's log where the node gave no answer in time; the
// errors of a broken stream hold it already.
func (r *single) silent(node string, err error) string {
	if strings.Contains(err.Error(), "on stderr") || errors.Is(err, context.Canceled) {
		return ""
	}
	return r.nodes.tail(node)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
