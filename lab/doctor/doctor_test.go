package doctor

import (
	"strings"
	"testing"

	"gauntlet/middlebox"
)

// What depends on a feature is said by the rules that use it.
func TestBehind(t *testing.T) {
	want := map[string]string{
		"ct state, status, direction": "every check behind a box",
		"named counters":              "checks behind any preset but open",
		"limit by address":            "checks behind any box with udp_rate",
		"masquerade":                  "checks behind confirming-router, linux; any box with unsolicited: confirm",
		"jhash":                       "checks behind any box with several addresses, unless pool: arbitrary",
	}
	for _, f := range middlebox.Features() {
		if text, ok := want[f.Name]; ok && behind(f) != text {
			t.Errorf("%s: %q, want %q", f.Name, behind(f), text)
		}
		if !strings.HasPrefix(behind(f), "checks behind ") && !strings.HasPrefix(behind(f), "every check") {
			t.Errorf("%s: %q names no checks", f.Name, behind(f))
		}
		delete(want, f.Name)
	}
	for name := range want {
		t.Errorf("no feature %s", name)
	}
}
