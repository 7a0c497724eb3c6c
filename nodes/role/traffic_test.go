package role

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/control"
)

// quarter is what every flow must stay under that does not carry the payload,
// with room: the lab's smallest payload is 32 KiB, and a quarter of it 8 KiB.
const quarter = 6 << 10

// checkTrace checks that the payload left the caller and reached the callee
// on so many flows, and that all other flows there are small.
func (o *overlay) checkTrace(m *meter, what string, caller, callee string, payload int) {
	o.t.Helper()
	a, b := o.nodes[caller].addr, o.nodes[callee].addr
	for end, flows := range map[string]map[string]count{
		"out of " + caller: m.of("", a, netip.Addr{}),
		"into " + callee:   m.of("", netip.Addr{}, b),
	} {
		carrying := 0
		for flow, c := range flows {
			switch {
			case c.bytes >= payload:
				carrying++
			case c.bytes > quarter:
				o.t.Errorf("%s: %d bytes %s on %s, at most %d without the payload", what, c.bytes, end, flow, quarter)
			}
		}
		if carrying != 1 {
			o.t.Errorf("%s: the payload goes %s on %d flows: %v", what, end, carrying, flows)
		}
	}
}

func TestPayloadIsTraceable(t *testing.T) {
	type filter = func(string, netip.AddrPort, netip.AddrPort) bool
	for name, make := range map[string]func(a, b netip.Addr) filter{
		"public":     func(_, _ netip.Addr) filter { return nil },
		"restricted": func(a, b netip.Addr) filter { return portRestricted(a, b) },
		"symmetric":  func(a, b netip.Addr) filter { return deaf(a, b) },
		"no udp":     func(a, b netip.Addr) filter { return blockUDPAndRestrict(a, b) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeter()
				o := newOverlayWrapped(t, "nec2006", m.wrap, 12, "alice", "bob")
				defer o.close()
				o.net.SetFilter(make(o.nodes["alice"].addr, o.nodes["bob"].addr))
				o.logins("alice", "bob")
				payload := bytes.Repeat([]byte{5}, 32<<10)

				m.reset()
				o.must("alice", control.MethodSearch, control.PeerParams{Callee: "bob", Payload: payload}, nil)
				o.checkTrace(m, "search", "alice", "bob", len(payload))

				m.reset()
				call := new(control.CallResult)
				o.must("alice", control.MethodCall, control.PeerParams{Callee: "bob", Payload: payload}, call)
				o.checkTrace(m, "call", "alice", "bob", len(payload))
				o.must("alice", control.MethodHangup, control.HangupParams{Call: call.Call}, nil)
			})
		})
	}
}

// TestStandbyRate checks claim C4 on the wire: about 3 small messages a second
// on each of the three relays that stand by, from each end.
func TestStandbyRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		o := newOverlayWrapped(t, "nec2006", m.wrap, 12, "alice", "bob")
		defer o.close()
		o.net.SetFilter(portRestricted(o.nodes["alice"].addr, o.nodes["bob"].addr))
		o.logins("alice", "bob")
		call, err := o.dial("alice", "bob")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the last checks are answered
		m.reset()
		const lasted = 20 * time.Second
		time.Sleep(lasted)
		carrying := o.nodes[call.Signalling.Legs[0].To].addr
		for _, end := range []string{"alice", "bob"} {
			standby := 0
			for flow, c := range m.of("tcp", o.nodes[end].addr, netip.Addr{}) {
				fields := bytes.Fields([]byte(flow))
				to := netip.MustParseAddrPort(string(fields[2])).Addr()
				if to == carrying || c.writes < 20 { // signalling, and the link to the own supernode
					continue
				}
				standby++
				if rate := float64(c.writes) / lasted.Seconds(); rate < 2.7 || rate > 3.3 {
					t.Errorf("%s sends %.2f messages a second on %s", end, rate, flow)
				}
				if size := c.bytes / c.writes; size > 60 {
					t.Errorf("%s sends messages of %d bytes on %s", end, size, flow)
				}
			}
			if standby != 3 {
				t.Errorf("%s holds %d standby relays: %v", end, standby, m.of("tcp", o.nodes[end].addr, netip.Addr{}))
			}
		}
		for flow, c := range m.of("udp", o.nodes["alice"].addr, o.nodes["bob"].addr) {
			if packets := c.bytes / 67; packets < 70*20-2 || packets > 70*20+2 || c.bytes%67 != 0 {
				t.Errorf("alice sent %d bytes in %d datagrams on %s, want 1400 of 67", c.bytes, c.writes, flow)
			}
		}
		o.must("alice", control.MethodHangup, control.HangupParams{Call: call.Call}, nil)
	})
}
