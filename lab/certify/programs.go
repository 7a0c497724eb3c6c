package certify

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"gauntlet/lab/internet"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
)

// programs adds to the measurement of a box that of its programs: the proxy, and
// port mapping of some protocols.
func (b *bench) programs(box internet.Box, measure measurement, mapped ...middlebox.Protocol) measurement {
	return func(ctx context.Context, w *probe.Watch, s probe.Subject) (m probe.Properties, err error) {
		if missing := b.internet.Unserved(box.Name); len(missing) > 0 {
			return m, errors.New(strings.Join(missing, "; "))
		}
		if m, err = measure(ctx, w, s); err != nil {
			return m, err
		}
		if box.Behaviour.Proxy != middlebox.NoProxy {
			if m.Proxy, err = probe.Proxy(ctx, w, s, netip.AddrPortFrom(box.LANAddr, middlebox.ProxyPort)); err != nil {
				return m, err
			}
		}
		if box.Behaviour.PortMapping {
			s.Mapped = func() error { return b.internet.CatchUp(box.Name) }
			err = probe.PortMapping(ctx, w, s, box.LANAddr, &m, mapped...)
		}
		return m, err
	}
}
