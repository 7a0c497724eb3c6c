package model

import (
	"net/netip"
	"testing"

	"gauntlet/middlebox"
)

// Blocks of 1024 ports, 63 of them, are given to the addresses of all networks
// inside in turn.
func TestBlockOfNetworks(t *testing.T) {
	isp, _ := middlebox.Preset("cgnat")
	b, err := New(Config{
		Behaviour: isp, WAN: []netip.Addr{netip.MustParseAddr("198.18.1.1")},
		LAN: netip.MustParsePrefix("10.0.1.0/24"), Routed: []netip.Prefix{netip.MustParsePrefix("10.0.4.0/22")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]int{ // 0 is none
		"10.0.1.1": 0, "10.0.1.2": 1024, "10.0.4.2": 2048, "10.0.1.3": 3072, "10.0.4.3": 4096,
		"10.0.1.33": 1024 + 62*1024, "10.0.4.33": 0, "10.0.5.0": 0, "10.0.2.1": 0,
	} {
		inside := netip.MustParseAddr(address)
		first, size, ok := b.block(inside)
		if ok != (want != 0) || ok && (first != want || size != 1024) {
			t.Errorf("%v: %d ports from %d, %v; want them from %d", inside, size, first, ok, want)
		}
	}
}
