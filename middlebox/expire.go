package middlebox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ExpireUDP makes the namespace forget all UDP mappings and flows, as when
// their timers run out (RFC 4787 §4.3). TCP connections and counters stay, and
// so do port mappings, which have lifetimes of their own.
func (l *Loader) ExpireUDP() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return fmt.Errorf("expire UDP mappings: %w", l.broken)
	}
	if err := l.empty("-" + string(UDP)); err != nil {
		return fmt.Errorf("expire UDP mappings: %w", err)
	}
	flows, err := l.tracking()
	if err != nil {
		return err
	}
	udp := &netlink.ConntrackFilter{}
	if err := udp.AddProtocol(unix.IPPROTO_UDP); err != nil {
		return fmt.Errorf("expire UDP flows: %w", err)
	}
	// The kernel may change the table while it is listed; then it is listed again.
	const tries = 5
	for range tries {
		if _, err = flows.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, udp); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("expire UDP flows: %w", err)
	}
	return nil
}

// Forget makes the namespace forget all mappings and flows, and whom hosts
// inside have sent to, as when its rules are loaded, but in a fraction of the
// time. Rules and counters stay, and so do the port mappings.
func (l *Loader) Forget() error {
	l.mu.Lock()
	err := l.broken
	if err == nil {
		err = l.empty("")
	}
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("forget mappings: %w", err)
	}
	return l.FlushConntrack()
}

// empty empties the sets that packets fill and whose names end in a suffix.
func (l *Loader) empty(suffix string) error {
	sets, err := l.conn.GetSets(table())
	if err != nil {
		return err
	}
	for _, s := range sets {
		if strings.HasSuffix(s.Name, suffix) && !askedFor(s.Name) {
			l.conn.FlushSet(s)
		}
	}
	return l.conn.Flush()
}
