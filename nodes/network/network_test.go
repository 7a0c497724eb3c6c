package network

import (
	"net"
	"net/netip"
	"testing"
)

func TestOS(t *testing.T) {
	nw := OS()
	if len(nw.Addrs()) == 0 {
		t.Error("no addresses, not even loopback")
	}
	for _, own := range nw.Addrs() {
		if !nw.OnLink(own) {
			t.Errorf("own address %s is said to be behind a router", own)
		}
	}
	if elsewhere := netip.MustParseAddr("240.0.0.1"); nw.OnLink(elsewhere) { // RFC 1112 §4: nobody's
		t.Errorf("%s is said to be on a network of this host's", elsewhere)
	}
	pc, err := nw.ListenPacket(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, ok := pc.(PacketConn); !ok {
		t.Errorf("%T is no PacketConn", pc)
	}
	if a := AddrPort(pc.LocalAddr()); a.Addr() != netip.MustParseAddr("127.0.0.1") || a.Port() == 0 {
		t.Errorf("local address %s", a)
	}
}

func TestAddrPort(t *testing.T) {
	mapped := &net.UDPAddr{IP: net.ParseIP("192.0.2.1").To16(), Port: 7}
	if got := AddrPort(mapped); got != netip.MustParseAddrPort("192.0.2.1:7") {
		t.Errorf("%s", got)
	}
	for _, a := range []net.Addr{nil, &net.UnixAddr{Name: "x", Net: "unix"}} {
		if got := AddrPort(a); got.IsValid() {
			t.Errorf("%v is %s", a, got)
		}
	}
}

func TestUnicast(t *testing.T) {
	for to, want := range map[string]bool{
		"198.18.0.1:5": true, "10.0.0.2:5": true, "[2001:db8::1]:5": true, "[::ffff:198.18.0.1]:5": true,
		"198.18.0.1:0": false, "0.0.0.0:5": false, "127.0.0.1:5": false, "169.254.1.1:5": false, "224.0.0.1:5": false,
		"255.255.255.255:5": false, "[::1]:5": false, "[fe80::1]:5": false, "[::ffff:127.0.0.1]:5": false,
	} {
		if got := Unicast(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: %v", to, got)
		}
	}
	if Unicast(netip.AddrPort{}) {
		t.Error("the zero value is taken")
	}
}
