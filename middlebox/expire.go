package middlebox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ExpireUDP makes the namespace forget all UDP mappings and flows, as when
// their timers run out (RFC 4787 §4.3). TCP connections and counters stay.
func (l *Loader) ExpireUDP() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return fmt.Errorf("expire UDP mappings: %w", l.broken)
	}
	sets, err := l.conn.GetSets(table())
	if err != nil {
		return fmt.Errorf("expire UDP mappings: %w", err)
	}
	suffix := "-" + string(UDP)
	for _, s := range sets {
		if !strings.HasSuffix(s.Name, suffix) {
			continue
		}
		l.conn.FlushSet(s)
	}
	if err := l.conn.Flush(); err != nil {
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
