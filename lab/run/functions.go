package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"
)

// The 2004 load: 70 packets a second each way, each of 67 bytes of UDP payload
// (reference/papers.md section 2.1). Of what it would bring in the time, this
// share must have arrived for the media to count as carried.
const (
	loadBytesPerSecond = 70 * 67
	loadShare          = 0.75
)

// login drives one client's login; its callee is the login server.
func (r *single) login(ctx context.Context, st *scenario.Step, d *driven) error {
	if !r.offered(d, control.MethodLogin) {
		return nil
	}
	payload := r.payload(0)
	var result control.LoginResult
	err := r.window(ctx, d, evidence.Exchange{Payload: int64(len(payload))}, limitOf(st), func(ctx context.Context) error {
		return r.nodes.call(ctx, d.Caller, control.MethodLogin, control.LoginParams{
			User: d.Caller, Password: r.nodes.account(d.Caller).Password, Payload: payload,
		}, &result)
	})
	d.record.Claimed = claimed(result.Path)
	if err == nil && d.record.NodeError == "" && st.Expect.Middlebox != nil {
		d.record.Problem = unlike(st.Expect.Middlebox, result.Middlebox)
	}
	return err
}

// unlike says how a client's finding differs from what was expected, "" if it
// doesn't.
func unlike(expected *scenario.Found, found *control.Middlebox) string {
	if found == nil {
		return "the client reports no finding about its middlebox"
	}
	var wrong []string
	if expected.UDP != nil && *expected.UDP != found.UDP {
		wrong = append(wrong, fmt.Sprintf("udp %v, expected %v", found.UDP, *expected.UDP))
	}
	if expected.Mapping != "" && expected.Mapping != found.Mapping {
		wrong = append(wrong, fmt.Sprintf("mapping %q, expected %q", found.Mapping, expected.Mapping))
	}
	if expected.Filtering != "" && expected.Filtering != found.Filtering {
		wrong = append(wrong, fmt.Sprintf("filtering %q, expected %q", found.Filtering, expected.Filtering))
	}
	if len(wrong) == 0 {
		return ""
	}
	return "the client is wrong about its middlebox: " + strings.Join(wrong, "; ")
}

// pair drives a function of one exchange between two clients.
func (r *single) pair(ctx context.Context, st *scenario.Step, d *driven) error {
	size := 0
	if st.Exchange != nil {
		size = st.Exchange.Payload
	}
	if st.Conference != nil {
		d.record.NotOffered = true // the lab itself can't drive one yet
		return nil
	}
	if !r.offered(d, d.Check.Function) {
		return nil
	}
	payload := r.payload(size)
	var result control.PeerResult
	err := r.window(ctx, d, evidence.Exchange{Payload: int64(len(payload))}, limitOf(st), func(ctx context.Context) error {
		return r.nodes.call(ctx, d.Caller, d.Check.Function, control.PeerParams{Callee: d.Callee, Payload: payload}, &result)
	})
	d.record.Claimed = claimed(result.Path)
	return err
}

// call drives a call in two windows: signalling from the request until both
// are connected, media from then until hangup. Flows of both are new since the
// request.
func (r *single) call(ctx context.Context, st *scenario.Step, signalling, media *driven) error {
	if !r.offered(signalling, control.MethodCall) || !r.offered(media, control.MethodCall) {
		media.record.NotOffered = true
		return nil
	}
	length := st.Call.For
	if length == 0 {
		length = defaultCall
	}
	payload := r.payload(0)
	load := evidence.Exchange{
		ID: media.Check.ID, Function: media.Check.Function, Caller: media.Caller, Callee: media.Callee,
		Payload: int64(length.Seconds() * loadBytesPerSecond * loadShare), BothWays: true,
	}

	var result control.CallResult
	err := r.window(ctx, signalling, evidence.Exchange{Payload: int64(len(payload))}, limitOf(st), func(ctx context.Context) error {
		return r.nodes.call(ctx, media.Caller, control.MethodCall, control.PeerParams{Callee: media.Callee, Payload: payload}, &result)
	})
	signalling.record.Claimed = claimed(result.Signalling)
	request := r.exchanges[len(r.exchanges)-1]
	load.Since, load.From, load.To = request.Since, request.From, request.To
	if err != nil || signalling.record.NodeError != "" || signalling.record.NotOffered {
		// No media was started; the same window shows whether any flowed.
		media.record.NodeError, media.record.NotOffered, media.record.Problem = signalling.record.NodeError, signalling.record.NotOffered, signalling.record.Problem
		return errors.Join(err, r.keep(ctx, media, load))
	}

	load.From = time.Now()
	if err := pause(ctx, length); err != nil {
		return err
	}
	load.To = time.Now()
	media.record.Seconds = load.To.Sub(load.From).Seconds()
	if err := r.keep(ctx, media, load); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defaultLimit, fmt.Errorf("no answer from %s to hangup within %v", media.Caller, defaultLimit))
	defer cancel()
	var end control.HangupResult
	err = r.nodes.call(ctx, media.Caller, control.MethodHangup, control.HangupParams{Call: result.Call}, &end)
	media.record.Claimed = claimed(result.Media)
	if end.Media != nil {
		media.record.Claimed = claimed(end.Media)
	}
	return r.outcome(media, err)
}

// pause lets a call last.
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

// claimed turns a node's claim into a record, nil if it claims nothing.
func claimed(p *control.Path) *path.Record {
	if p == nil {
		return nil
	}
	r := &path.Record{Path: p.Path, Relays: p.Relays, Carrying: p.Carrying, Hops: p.Hops, Legs: []path.Leg{}}
	for _, leg := range p.Legs {
		r.Legs = append(r.Legs, path.Leg{From: leg.From, To: leg.To, Transport: leg.Transport})
	}
	return r
}
