package run

import (
	"context"
	"fmt"
	"strings"

	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"
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
