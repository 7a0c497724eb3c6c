package middlebox

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

// The punch sends this far apart; where nothing is expected, so often.
const (
	punchSends    = 20
	punchInterval = 4 * time.Millisecond
)

// punch is one end of hole punching (RFC 5128 §3.3): it waits, sends to the
// peer's external endpoint again and again, and returns whether it has heard
// from the peer. Once it has, it sends a last time, to where the peer's packet
// came from (RFC 8445's peer-reflexive candidate), so that the peer hears from
// it too.
func punch(c *net.UDPConn, peer netip.AddrPort, wait time.Duration, sends int) (bool, error) {
	time.Sleep(wait) // the skew under test
	buf := make([]byte, 1500)
	for range sends {
		if _, err := c.WriteToUDPAddrPort([]byte("punch"), peer); err != nil {
			return false, err
		}
		if err := c.SetReadDeadline(time.Now().Add(punchInterval)); err != nil {
			return false, err
		}
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err == nil && string(buf[:n]) == "punch" {
			_, err := c.WriteToUDPAddrPort([]byte("punch"), from)
			return true, err
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, err
		}
	}
	return false, nil
}

// tryPunch has alice and bob, on fresh ports, learn their external endpoints
// from s1, exchange them, and punch, bob later than alice by the skew (or
// earlier, if it is negative), each sending so often at most. It returns whether
// both heard from the other.
func (l *lab) tryPunch(server *net.UDPConn, skew time.Duration, sends int) bool {
	l.Helper()
	alice, bob := l.udp("alice"), l.udp("bob")
	defer alice.Close()
	defer bob.Close()
	a, b := l.observe(alice, server), l.observe(bob, server)
	var heard [2]bool
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { heard[0], errs[0] = punch(alice, b, max(0, -skew), sends) })
	wg.Go(func() { heard[1], errs[1] = punch(bob, a, max(0, skew), sends) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		l.Fatal(err)
	}
	return heard[0] && heard[1]
}

// skew is 0 to 5 ms, either end being first in turn.
func skew(try int) time.Duration {
	s := time.Duration(try/2%6) * time.Millisecond
	if try%2 == 1 {
		return -s
	}
	return s
}

func TestPunch(t *testing.T) {
	const tries = 100
	cases := []struct {
		a, b  string
		tries int
		want  int
	}{
		{"port-restricted", "port-restricted", tries, tries},
		{"symmetric", "symmetric", 10, 0},
		// A stranger's packet that the router answers itself costs the port.
		{"confirming-router", "confirming-router", 10, 0},
		{"restricted-cone", "symmetric", 12, 12},
		{"full-cone", "symmetric", 12, 12},
		{"port-restricted", "symmetric", 10, 0},
		{"stateful-firewall", "port-restricted", 12, 12},
	}
	for _, c := range cases {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			a, _ := Preset(c.a)
			b, _ := Preset(c.b)
			l := newLab(t, a, b)
			server := l.udp("s1")
			got, sends := 0, punchSends
			if c.want > 0 { // a busy machine may hold one end up
				sends = int(patience / punchInterval)
			}
			for try := range c.tries {
				s := skew(try)
				if c.a == "confirming-router" {
					s = 5 * time.Millisecond // the one who waits always hears first
				}
				if l.tryPunch(server, s, sends) {
					got++
				}
			}
			if got != c.want {
				t.Errorf("%d of %d tries punched, want %d", got, c.tries, c.want)
			}
		})
	}
}
