package model

import (
	"net/netip"
	"testing"
	"time"

	"gauntlet/middlebox"
)

// A flow lives for one time until it is a stream, and then for another: from the
// first packet on after an answer, if it is old enough.
func TestStream(t *testing.T) {
	const unreplied, timeout = 30 * time.Second, 120 * time.Second
	inside, outside := netip.MustParseAddrPort("10.0.1.2:4000"), netip.MustParseAddrPort("198.18.0.9:9")
	external := netip.MustParseAddrPort("198.18.1.1:4000")
	const second = time.Second
	for _, c := range []struct {
		name string
		sent []time.Duration // from inside if not negative, else an answer, so long after the beginning
		ends time.Duration   // the first time at which an answer no longer gets in
	}{
		{"one packet", []time.Duration{0}, unreplied},
		{"without an answer", []time.Duration{0, 20 * second}, 20*second + unreplied},
		{"one answer", []time.Duration{0, -10 * second}, 10*second + unreplied},
		{"soon after an answer", []time.Duration{0, -second, 2 * second}, 2*second + unreplied},
		{"later than that", []time.Duration{0, -second, 2*second + 1}, 2*second + 1 + timeout},
		{"two late answers", []time.Duration{0, -10 * second, -11 * second}, 11*second + timeout},
		{"a new flow", []time.Duration{0, -second, 3 * second, 200 * second}, 200*second + unreplied},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, late := range []time.Duration{-1, 0} {
				b, err := New(Config{
					Behaviour: middlebox.Behaviour{
						Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent,
						UDPTimeout: timeout, UDPUnreplied: unreplied,
					},
					WAN: []netip.Addr{external.Addr()}, LAN: netip.MustParsePrefix("10.0.1.0/24"),
				})
				if err != nil {
					t.Fatal(err)
				}
				handle := func(from Side, p Packet, at time.Duration) Fate {
					f, err := b.Handle(from, p, at, First)
					if err != nil {
						t.Fatal(err)
					}
					return f
				}
				answer := Packet{Protocol: middlebox.UDP, From: outside, To: external}
				for _, at := range c.sent {
					if at < 0 {
						handle(Outside, answer, -at)
					} else if f := handle(Inside, Packet{Protocol: middlebox.UDP, From: inside, To: outside}, at); f.Packet.From != external {
						t.Fatalf("%v after %v, want from %v", f, at, external)
					}
				}
				if f := handle(Outside, answer, c.ends+late); (f.Dropped == "") != (late < 0) {
					t.Errorf("%v after %v, whose flow ends after %v", f, c.ends+late, c.ends)
				}
			}
		})
	}
}
