package model

import (
	"slices"
	"testing"

	"gauntlet/middlebox"
)

// Sequences that once told kernel and model apart.
func TestKernelFound(t *testing.T) {
	const data = 1 // of segments: an ACK
	for what, c := range map[string]struct {
		b        middlebox.Behaviour
		sequence []step
	}{
		// A reset for a SYN that doesn't fit into a connection would end it.
		"reject": {
			middlebox.Behaviour{Filtering: middlebox.FilterAddressAndPortDependent, Unsolicited: middlebox.RejectUnsolicited},
			[]step{{kind: out, tcp: true, flags: data}, {kind: in, tcp: true}, {kind: answer, tcp: true, flags: data}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, c.b.Translates(), min(1, len(c.b.Mapping)))
			pin(t)
			difference, err := compare(r, c.b, c.b, c.sequence)
			if err != nil {
				t.Fatal(err)
			}
			if difference != nil {
				t.Error(difference)
			}
		})
	}
}

// Such sequences that take time. Each is run until nothing in it was in doubt.
func TestKernelFoundInTime(t *testing.T) {
	const (
		most  = 80 // times: a busy machine takes more
		annas = 3  // of endpoints inside: the one with the port of the first
		fin   = 3  // of segments
		rst   = 4
	)
	inTransit := middlebox.Behaviour{
		Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, Ports: middlebox.PreservePorts,
		TCPTransitory: shortTimer,
	}
	outward := middlebox.Behaviour{
		Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterEndpointIndependent, Ports: middlebox.PreservePorts,
		Refresh: middlebox.RefreshOutbound, UDPTimeout: longTimer,
	}
	// The flow of the first endpoint lives on by an answer, when its mapping is
	// closed. The second wants its port, and then the first goes on.
	resumed := func(far int) []later {
		return []later{
			{step{kind: out}, 0}, {step{kind: answer}, 3}, {step{kind: out, near: annas, far: far}, 1}, {step{kind: out}, 1},
			{step{kind: out, near: annas, far: far}, 0}, {step{kind: answer, target: 1}, 0}, {step{kind: answer}, 0},
		}
	}
	connected := []later{
		{step{kind: out, tcp: true}, 0}, {step{kind: answer, tcp: true, flags: synAckSegment}, 0}, {step{kind: out, tcp: true, flags: ackSegment}, 0},
	}
	for what, c := range map[string]struct {
		b        middlebox.Behaviour
		sequence []later
	}{
		// The next endpoint that gets the port finds no connection in its way.
		"closed": {inTransit, append(connected[:3:3],
			later{step{kind: out, tcp: true, flags: fin}, 0}, later{step{kind: answer, tcp: true, flags: fin}, 0}, later{step{kind: out, tcp: true, flags: ackSegment}, 0},
			later{step{kind: out, tcp: true, near: annas}, 2})},
		// Nobody shares a port with a flow that lives on, towards whomever.
		"resumed, another server":              {outward, resumed(len(outsidePorts))},
		"resumed, the same server":             {outward, resumed(0)},
		"resumed, one that filters by address": {with(outward, func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressDependent }), resumed(0)},
		"resumed, one that filters by port":    {with(outward, func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressAndPortDependent }), resumed(0)},
		// What a filter stops prolongs a flow in connection tracking too.
		"stopped": {with(outward, func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressAndPortDependent }), []later{
			{step{kind: out}, 0}, {step{kind: out, far: len(outsidePorts)}, 2}, {step{kind: in, target: 1}, 2}, {step{kind: in}, 1},
			{step{kind: out, near: annas}, 1}, {step{kind: out}, 0}, {step{kind: out, near: annas}, 0},
		}},
		// Each address has its rate, each way, from and to wherever.
		"rate": {middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Hairpin: true, Ports: middlebox.PreservePorts, UDPRate: 1}, []later{
			{step{kind: out}, 0}, {step{kind: out, near: annas}, 0}, {step{kind: answer}, 0}, {step{kind: loop}, 0},
			{step{kind: loop}, 2}, {step{kind: answer}, 0}, {step{kind: answer, target: 1}, 0},
			{step{kind: out}, 1}, {step{kind: out, near: annas}, 0}, {step{kind: out}, 1}, {step{kind: in, far: 1}, 0},
		}},
		"reset": {inTransit, append(connected[:3:3],
			later{step{kind: out, tcp: true, flags: rst}, 0}, later{step{kind: out, tcp: true, near: annas}, 2})},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.b.Translates(), min(1, len(c.b.Mapping)))
			pin(t)
			// From the first tick on, see aged.
			timed, sure := len(c.sequence)-slices.IndexFunc(c.sequence, func(s later) bool { return s.ticks > 0 }), false
			for n := 0; n < most && !sure; n++ {
				done, difference, err := age(r, c.b, c.sequence)
				if err != nil {
					t.Fatal(err)
				}
				if difference != nil {
					t.Fatal(difference)
				}
				sure = done.packets == timed
			}
			if !sure {
				t.Errorf("each of %d times something was in doubt", most)
			}
		})
	}
}

// with returns a behaviour with a change.
func with(b middlebox.Behaviour, change func(*middlebox.Behaviour)) middlebox.Behaviour {
	change(&b)
	return b
}
