package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/scenario"
)

// meanwhile is what the lab does in the middle of a call.
type meanwhile struct {
	run     *single
	call    *scenario.Call
	step    int // counted from 1
	carrier *carrier

	end  context.CancelCauseFunc
	done chan struct{} // closed once nothing more is done; then what follows holds

	events []evidence.Event
	err    error // why not all of it was done
}

// meanwhile begins to watch for the call's media; from its beginning on, what the
// scenario has happen during the call is done. It must be finished.
func (r *single) meanwhile(ctx context.Context, call *scenario.Call, step int) *meanwhile {
	m := &meanwhile{run: r, call: call, step: step, carrier: newCarrier(r.internet.Plan, call.Caller, call.Callee), done: make(chan struct{})}
	ctx, m.end = context.WithCancelCause(ctx)
	unwatch := r.recorder.Watch(m.carrier.see)
	go func() {
		defer close(m.done)
		defer unwatch()
		m.err = m.do(ctx)
	}()
	return m
}

func (m *meanwhile) do(ctx context.Context) error {
	select {
	case <-m.carrier.start:
	case <-ctx.Done():
		return fmt.Errorf("no media of the 2004 load came to %s: %w", m.call.Callee, context.Cause(ctx))
	}
	began, carrying := m.carrier.began(), ""
	for i := range m.call.During {
		e := &m.call.During[i]
		if err := pause(ctx, time.Until(began.Add(e.At))); err != nil {
			return fmt.Errorf("%s %s: %w", e.Action(), e.Target(), err)
		}
		target := e.Target()
		if target == scenario.Carrying {
			if e.Resume == nil {
				var err error
				if carrying, err = m.carrier.await(ctx); err != nil {
					return fmt.Errorf("%s: %w", e.Action(), err)
				}
			}
			target = carrying
		}
		done := evidence.Event{Action: e.Action(), Target: target, Began: time.Now()}
		if err := m.run.intervene(&e.Intervention, target, m.step); err != nil {
			return err
		}
		done.Done = time.Now()
		m.events = append(m.events, done)
	}
	return nil
}

// finish waits for what is being done, and has nothing more begin.
func (m *meanwhile) finish() {
	m.end(errors.New("the call was over"))
	<-m.done
}
