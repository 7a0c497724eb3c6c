package capture

import (
	"net/netip"
	"testing"
	"time"

	"gauntlet/lab/evidence"
)

// Who watches is told of every packet until it stops.
func TestWatch(t *testing.T) {
	l := newLab(t)
	ctx := timeout(t)
	r, err := Start(ctx, l.config(t.TempDir()))
	must(t, err)
	inside, outside := listen(t, l.inner, "10.0.1.2:4000"), listen(t, l.outer, "198.18.1.2:5000")
	const size = 77
	taps := map[string]int{}
	stop := r.Watch(func(tap string, at time.Time, p evidence.Packet) {
		if p.Transport == evidence.UDP && p.Payload == size && time.Since(at) < time.Minute {
			taps[tap]++
		}
	})
	for range 2 {
		send(t, inside, netip.AddrPortFrom(outerAddress, 5000), size)
		receive(t, outside)
		must(t, r.Sync(ctx))
		stop() // from here on it is told of nothing
	}
	for _, tap := range l.config("").Taps {
		if taps[tap.Name] != 1 {
			t.Errorf("%d packets at %s, want 1", taps[tap.Name], tap.Name)
		}
	}
	_, err = r.Close()
	must(t, err)
}
