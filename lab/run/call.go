package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/judge"
	"gauntlet/lab/media"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"
)

// Of what the 2004 load would bring in the time, this share must have arrived for
// the media to count as carried.
const loadShare = 0.75

// loadOver is the payload of media in a window.
func loadOver(from, to time.Time) int64 {
	return int64(to.Sub(from).Seconds() * media.Rate * media.PacketSize * loadShare)
}

// call drives a call in two windows: signalling from the request until both
// are connected, media from then until hangup. Flows of both are new since the
// request. Where something happens during the call, media has two windows: from
// its first packet until that begins, and after it is done. The step is counted from 1.
func (r *single) call(ctx context.Context, st *scenario.Step, step int, planned []*driven) error {
	signalling, parts := planned[0], planned[1:]
	for _, d := range planned {
		if !r.offered(d, control.MethodCall) {
			for _, d := range planned {
				d.record.NotOffered = true
			}
			return nil
		}
	}
	payload := r.payload(0)
	var result control.CallResult
	var m *meanwhile
	err := r.window(ctx, signalling, evidence.Exchange{Payload: int64(len(payload))}, limitOf(st), func(limited context.Context) error {
		if len(st.Call.During) > 0 {
			m = r.meanwhile(ctx, st.Call, step)
		}
		return r.nodes.call(limited, signalling.Caller, control.MethodCall, control.PeerParams{Callee: signalling.Callee, Payload: payload}, &result)
	})
	if m != nil {
		defer m.finish()
	}
	if signalling.record.Exchange == judge.NotDriven {
		return err
	}
	signalling.record.Claimed = claimed(result.Signalling)
	request := r.exchanges[signalling.record.Exchange]
	load := evidence.Exchange{
		Caller: signalling.Caller, Callee: signalling.Callee, BothWays: true,
		Since: request.Since, From: request.From, To: request.To,
	}
	if err != nil || signalling.record.NodeError != "" || signalling.record.NotOffered {
		// No media was started; the same window shows whether any flowed.
		load.Payload = int64(st.Call.Length().Seconds() * media.Rate * media.PacketSize * loadShare)
		for _, d := range parts {
			d.record.NodeError, d.record.NotOffered, d.record.Problem = signalling.record.NodeError, signalling.record.NotOffered, signalling.record.Problem
			err = errors.Join(err, r.keepLoad(ctx, d, load))
		}
		return err
	}

	load.From = time.Now()
	if err := pause(ctx, st.Call.Length()); err != nil {
		return err
	}
	load.To = time.Now()
	load.Payload = loadOver(load.From, load.To)
	if err := r.keepParts(ctx, parts, load, m); err != nil {
		return err
	}
	// What the caller claimed then is of media until something happened, unless that
	// was before.
	if len(parts) > 1 && (m.err != nil || m.events[0].Began.After(load.From)) {
		parts[0].record.Claimed = claimed(result.Media)
	}
	return r.hangUp(ctx, parts[len(parts)-1], result)
}

// keepParts stores the windows of a call's media, and what happened in between.
func (r *single) keepParts(ctx context.Context, parts []*driven, load evidence.Exchange, m *meanwhile) error {
	if m == nil {
		parts[0].record.Seconds = load.To.Sub(load.From).Seconds()
		return r.keepLoad(ctx, parts[0], load)
	}
	m.finish()
	before, after := load, load
	after.Events = m.events
	if m.err == nil {
		before.From, before.To = m.carrier.began(), m.events[0].Began
		before.Payload = loadOver(before.From, before.To)
		after.From = m.events[len(m.events)-1].Done
		after.Payload = loadOver(after.From, after.To)
	} else {
		for _, d := range parts {
			d.record.Unseen = append(d.record.Unseen, fmt.Sprintf("what was to happen during the call did not: %v", m.err))
		}
	}
	parts[0].record.Seconds, parts[1].record.Seconds = before.To.Sub(before.From).Seconds(), after.To.Sub(after.From).Seconds()
	return errors.Join(r.keepLoad(ctx, parts[0], before), r.keepLoad(ctx, parts[1], after))
}

func (r *single) keepLoad(ctx context.Context, d *driven, e evidence.Exchange) error {
	e.ID, e.Function = d.Check.ID, d.Check.Function
	return r.keep(ctx, d, e)
}

// hangUp ends a call. The path that the caller claims then is that of the last
// part of its media.
func (r *single) hangUp(ctx context.Context, last *driven, call control.CallResult) error {
	ctx, cancel := context.WithTimeoutCause(ctx, defaultLimit, fmt.Errorf("no answer from %s to hangup within %v", last.Caller, defaultLimit))
	defer cancel()
	var end control.HangupResult
	err := r.nodes.call(ctx, last.Caller, control.MethodHangup, control.HangupParams{Call: call.Call}, &end)
	last.record.Claimed = claimed(call.Media)
	if end.Media != nil {
		last.record.Claimed = claimed(end.Media)
	}
	if err == nil && r.recorder.Sync(ctx) == nil {
		r.exchanges[last.record.Exchange].Ended = time.Now()
	}
	return r.outcome(last, err)
}

// pause lets time pass.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
