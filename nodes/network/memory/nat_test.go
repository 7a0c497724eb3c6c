package memory

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/network"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func listenOn(t *testing.T, h network.Network, port uint16) network.PacketConn {
	t.Helper()
	c, err := h.ListenPacket(context.Background(), netip.AddrPortFrom(h.Addrs()[0], port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(network.PacketConn)
}

// got reads one datagram and returns where it came from, the zero value if none
// comes.
func got(t *testing.T, c network.PacketConn) netip.AddrPort {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	_, from, err := c.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		return netip.AddrPort{}
	}
	return from
}

func TestNAT(t *testing.T) {
	for name, c := range map[string]struct {
		mapping, filtering Dependence
		onePort            bool    // for two remote addresses
		in                 [3]bool // from the remote port, another port of it, another address
	}{
		"full cone":       {EndpointIndependent, EndpointIndependent, true, [3]bool{true, true, true}},
		"restricted cone": {EndpointIndependent, AddressDependent, true, [3]bool{true, true, false}},
		"port-restricted": {EndpointIndependent, AddressPortDependent, true, [3]bool{true, false, false}},
		"symmetric":       {AddressPortDependent, AddressPortDependent, false, [3]bool{true, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				nat := &NAT{External: netip.MustParseAddr("198.18.1.1"), Mapping: c.mapping, Filtering: c.filtering,
					Timeout: time.Minute}
				inside := listenOn(t, n.Behind(nat, "inside", netip.MustParseAddr("10.0.0.2")), 4000)
				remote := n.Host("remote", addrA)
				first, second := listenOn(t, remote, 1), listenOn(t, remote, 2)
				other := listenOn(t, n.Host("other", addrB), 1)
				send := func(from network.PacketConn, to netip.AddrPort) {
					if _, err := from.WriteToUDPAddrPort([]byte("x"), to); err != nil {
						t.Fatal(err)
					}
				}
				send(inside, netip.AddrPortFrom(addrA, 1))
				mapped := got(t, first)
				if mapped.Addr() != nat.External {
					t.Fatalf("seen at %v", mapped)
				}
				for i, from := range []network.PacketConn{first, second, other} {
					send(from, mapped)
					if in := got(t, inside).IsValid(); in != c.in[i] {
						t.Errorf("datagram %d gets in: %v", i, in)
					}
				}
				send(inside, netip.AddrPortFrom(addrB, 1))
				if again := got(t, other); (again == mapped) != c.onePort {
					t.Errorf("seen at %v and %v", mapped, again)
				}
				time.Sleep(2 * time.Minute)
				send(first, mapped)
				if got(t, inside).IsValid() {
					t.Error("a datagram gets in through an expired binding")
				}
				send(first, at("10.0.0.2:4000"))
				if got(t, inside).IsValid() {
					t.Error("a datagram to a private address gets in")
				}
				if _, err := remote.Dial(t.Context(), at("10.0.0.2:4000")); err == nil {
					t.Error("a connection to a private address gets in")
				}
			})
		})
	}
}

// TestHairpin has two hosts behind one NAT meet at its external address.
func TestHairpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		nat := &NAT{External: netip.MustParseAddr("198.18.1.1"), Sequential: true}
		a := listenOn(t, n.Behind(nat, "a", netip.MustParseAddr("10.0.0.2")), 4000)
		b := listenOn(t, n.Behind(nat, "b", netip.MustParseAddr("10.0.0.3")), 4000)
		a.WriteToUDPAddrPort([]byte("x"), at("198.18.0.1:1"))
		b.WriteToUDPAddrPort([]byte("x"), at("198.18.1.1:1025"))
		if from := got(t, a); from != at("198.18.1.1:1026") {
			t.Errorf("a hears b from %v", from)
		}
		b.WriteToUDPAddrPort([]byte("x"), at("10.0.0.2:4000"))
		if from := got(t, a); from != at("10.0.0.3:4000") {
			t.Errorf("a hears b from %v at its own address", from)
		}
	})
}
