package model

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// step is one packet of a sequence, by numbers that shrink towards 0.
type step struct {
	inward bool
	near   int // an endpoint inside
	far    int // an endpoint outside
	target int // of an inward packet, or a hairpinned one: an external endpoint seen so far
	loop   bool
}

func (s step) String() string {
	switch {
	case s.inward:
		return fmt.Sprintf("in %d to %d", s.far, s.target)
	case s.loop:
		return fmt.Sprintf("loop %d to %d", s.near, s.target)
	}
	return fmt.Sprintf("out %d to %d", s.near, s.far)
}

// steps draws a sequence. Half of the packets go out, at first all.
func steps(r *rig, hairpin bool) *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		kinds := 2
		if hairpin {
			kinds = 3
		}
		kind := rapid.IntRange(0, kinds-1).Draw(t, "kind")
		return step{
			inward: kind == 1, loop: kind == 2,
			near:   rapid.IntRange(0, len(r.inside)-1).Draw(t, "near"),
			far:    rapid.IntRange(0, len(r.outside)-1).Draw(t, "far"),
			target: rapid.IntRange(0, 5).Draw(t, "target"),
		}
	})
	return rapid.SliceOfN(one, 1, 14)
}

// errHidden ends a sequence where the kernel has chosen a port that nobody sees.
var errHidden = errors.New("the port is hidden")

// compare runs a sequence through a kernel that has one behaviour and a model
// that has another, or the same, and returns the first difference. It fails
// the test only if it can't be told.
func compare(r *rig, kernel, declared middlebox.Behaviour, sequence []step) (difference error, failed error) {
	if err := r.behave(kernel); err != nil {
		return nil, err
	}
	box, err := New(r.config(declared))
	if err != nil {
		return nil, err
	}
	known := []netip.AddrPort{} // external endpoints
	for i, s := range sequence {
		p, from, side := packetOf(r, declared, s, known)
		if m := box.mapped(p.Protocol, p.To); s.loop && m != nil && m.key.inside.Addr() == p.From.Addr() {
			continue // a host has no need to reach itself, and the kernel loses it: see Fidelity
		}
		got, err := r.send(from, p.To, uint16(i))
		if err != nil {
			return nil, fmt.Errorf("packet %d, %v: %w", i, p, err)
		}
		want, err := box.Handle(side, p, time.Duration(i), func(c Choice) (netip.AddrPort, error) {
			switch {
			case got.dropped == middlebox.NoPortRule:
				return netip.AddrPort{}, ErrNoPort
			case !got.arrived:
				// Dropped after it got its port: only a preserved one is known.
				preserved := netip.AddrPortFrom(r.config(declared).WAN[0], c.Inside.Port())
				if declared.Ports == middlebox.RandomPorts || c.Allows(preserved) != nil {
					return netip.AddrPort{}, errHidden
				}
				return preserved, nil
			}
			return got.from, nil
		})
		if errors.Is(err, errHidden) {
			return nil, nil
		}
		if err != nil {
			return fmt.Errorf("packet %d, %v: kernel %s; model: %w", i, p, describe(got), err), nil
		}
		if d := unlike(got, want); d != "" {
			return fmt.Errorf("packet %d, %v: kernel %s; model %v: %s", i, p, describe(got), want, d), nil
		}
		if got.arrived && !s.inward {
			known = append(known, got.from)
		}
	}
	return nil, nil
}

// packetOf makes the packet of a step.
func packetOf(r *rig, b middlebox.Behaviour, s step, known []netip.AddrPort) (Packet, socket, Side) {
	p := Packet{Protocol: middlebox.UDP}
	if !s.inward && !s.loop {
		from := r.inside[s.near]
		p.From, p.To = from.local, r.outside[s.far].local
		return p, from, Inside
	}
	switch {
	case len(known) > 0:
		p.To = known[s.target%len(known)]
	case b.Translates():
		p.To = netip.AddrPortFrom(r.config(b).WAN[0], insidePorts[s.target%len(insidePorts)])
	default:
		p.To = r.inside[s.target%len(r.inside)].local
	}
	if s.loop {
		p.From = r.inside[s.near].local
		return p, r.inside[s.near], Inside
	}
	p.From = r.outside[s.far].local
	return p, r.outside[s.far], Outside
}

func describe(s seen) string {
	if s.arrived {
		return fmt.Sprintf("brought it to %v from %v", s.at.local, s.from)
	}
	return "dropped it by " + s.dropped
}

// unlike compares what the kernel did with what the model says.
func unlike(got seen, want Fate) string {
	switch {
	case got.arrived != (want.Dropped == ""):
		return "one of them lets it through"
	case !got.arrived && got.dropped != want.Dropped:
		return "another rule"
	case got.arrived && got.at.local != want.Packet.To:
		return "another receiver"
	case got.arrived && got.from != want.Packet.From:
		return "another source"
	}
	return ""
}

// grid is every mapping with every filtering and both ways to choose a port.
func grid() (list []middlebox.Behaviour) {
	for _, m := range []middlebox.Mapping{middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent} {
		for _, f := range []middlebox.Filtering{middlebox.FilterEndpointIndependent, middlebox.FilterAddressDependent, middlebox.FilterAddressAndPortDependent} {
			for _, p := range []middlebox.Ports{middlebox.PreservePorts, middlebox.RandomPorts} {
				list = append(list, middlebox.Behaviour{Mapping: m, Filtering: f, Ports: p})
			}
		}
	}
	return list
}

// name is what differs from the zero behaviour.
func name(b middlebox.Behaviour) string {
	short := map[string]string{"endpoint-independent": "EI", "address-dependent": "AD", "address-and-port-dependent": "APD", "": "no"}
	return fmt.Sprintf("%sM %sF %s", short[string(b.Mapping)], short[string(b.Filtering)], b.Ports)
}

// agree checks that kernel and model do the same to random sequences, which
// rapid shortens where they don't.
func agree(t *testing.T, r *rig, b middlebox.Behaviour) {
	pin(t)
	rapid.Check(t, func(rt *rapid.T) {
		sequence := steps(r, b.Hairpin).Draw(rt, "packets")
		difference, err := compare(r, b, b, sequence)
		if err != nil {
			rt.Fatal(err)
		}
		if difference != nil {
			rt.Fatal(difference)
		}
	})
}

// The whole grid, with one external address.
func TestKernelGrid(t *testing.T) {
	r := newRig(t, true, 1)
	for _, b := range grid() {
		t.Run(name(b), func(t *testing.T) { agree(t, r, b) })
	}
}

// Each other property, once with every mapping that has it.
func TestKernelProperties(t *testing.T) {
	r, pool, wall := newRig(t, true, 1), newRig(t, true, 3), newRig(t, false, 0)
	for label, change := range map[string]func(*middlebox.Behaviour){
		"sequential": func(b *middlebox.Behaviour) { b.Ports = middlebox.SequentialPorts },
		"parity":     func(b *middlebox.Behaviour) { b.Ports = middlebox.ParityPorts },
		"block":      func(b *middlebox.Behaviour) { b.Ports, b.PortBlock = middlebox.BlockPorts, 64 },
		"outbound":   func(b *middlebox.Behaviour) { b.Refresh = middlebox.RefreshOutbound },
		"outbound ADF": func(b *middlebox.Behaviour) {
			b.Refresh, b.Filtering = middlebox.RefreshOutbound, middlebox.FilterAddressDependent
		},
		"outbound EIF": func(b *middlebox.Behaviour) {
			b.Refresh, b.Filtering = middlebox.RefreshOutbound, middlebox.FilterEndpointIndependent
		},
		"reject": func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited },
		"deny": func(b *middlebox.Behaviour) {
			b.Deny = []middlebox.Deny{{Host: "s2", Protocol: middlebox.UDP, Port: 5001}}
		},
		"deny ADF": func(b *middlebox.Behaviour) {
			b.Deny, b.Filtering = []middlebox.Deny{{Host: "s2", Protocol: middlebox.UDP}}, middlebox.FilterAddressDependent
		},
		"allow":       func(b *middlebox.Behaviour) { b.Allow = []middlebox.Service{{Protocol: middlebox.UDP, Port: 5000}} },
		"block udp":   func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} },
		"hairpin":     func(b *middlebox.Behaviour) { b.Hairpin = true },
		"hairpin ADF": func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterAddressDependent },
		"hairpin EIF": func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterEndpointIndependent },
		"paired":      func(b *middlebox.Behaviour) { b.Pool = middlebox.PairedPool },
		"arbitrary":   func(b *middlebox.Behaviour) { b.Pool = middlebox.ArbitraryPool },
		"arbitrary EIF": func(b *middlebox.Behaviour) {
			b.Pool, b.Filtering = middlebox.ArbitraryPool, middlebox.FilterEndpointIndependent
		},
		"ADF": func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressDependent },
		"EIF": func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterEndpointIndependent },
	} {
		for _, m := range []middlebox.Mapping{
			middlebox.NoMapping, middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent,
		} {
			b := middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent}
			change(&b)
			if len(b.Validate()) > 0 {
				continue
			}
			on := r
			if b.Pool != "" {
				on = pool
			}
			if m == middlebox.NoMapping {
				on = wall
			}
			t.Run(label+" "+name(b), func(t *testing.T) { agree(t, on, b) })
		}
	}
}

// Any two behaviours of the grid are told apart, so that agreement means
// something.
func TestKernelDiffers(t *testing.T) {
	r := newRig(t, true, 1)
	pin(t)
	for _, kernel := range grid() {
		for _, declared := range grid() {
			if kernel.Mapping == declared.Mapping && kernel.Filtering == declared.Filtering {
				// Any port will do for ports: random, also the preserved one.
				continue
			}
			found := false
			for seed := 0; seed < 60 && !found; seed++ {
				difference, err := compare(r, kernel, declared, steps(r, false).Example(seed))
				if err != nil {
					t.Fatal(err)
				}
				found = difference != nil
			}
			if !found {
				t.Errorf("a kernel of %s passes for %s", name(kernel), name(declared))
			}
		}
	}
}
