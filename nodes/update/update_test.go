package update

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/network/memory"
)

// TestCheck is claim L1 of papers.md.
func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.New(memory.Latency(time.Millisecond))
		at := netip.MustParseAddrPort("198.18.0.1:80")
		l, err := n.Host("update", at.Addr()).Listen(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		s := Serve(l, slog.New(slog.DiscardHandler))
		client := n.Host("alice", netip.MustParseAddr("198.18.0.2"))
		for _, first := range []bool{true, false, false} {
			if v, err := Check(t.Context(), client, at, first); err != nil || v != Version {
				t.Errorf("check: %q, %v", v, err)
			}
		}
		if i, g := s.Requests(PathInstalled), s.Requests(PathLatest); i != 1 || g != 2 {
			t.Errorf("asked for %s %d times and %s %d times, want 1 and 2", PathInstalled, i, PathLatest, g)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := Check(t.Context(), client, at, false); err == nil || !strings.Contains(err.Error(), "check for updates") {
			t.Errorf("check with a dead server: %v", err)
		}
	})
}
