package call

import (
	"net/netip"
	"testing"
)

// A port counts as one after the last only if the box gave it later.
func TestAhead(t *testing.T) {
	last := netip.MustParseAddrPort("198.18.1.1:1040")
	for seen, want := range map[string]bool{
		"198.18.1.1:1041": true, "198.18.1.1:1100": true,
		"198.18.1.1:1040": false, "198.18.1.1:1027": false, // given before
		"198.18.1.2:1041": false, // the box has another address now
	} {
		if got := ahead(last, netip.MustParseAddrPort(seen)); got != want {
			t.Errorf("%s after %s: %v, want %v", seen, last, got, want)
		}
	}
	if !ahead(netip.MustParseAddrPort("198.18.1.1:65530"), netip.MustParseAddrPort("198.18.1.1:1024")) {
		t.Error("a sequence that begins anew is not followed")
	}
}
