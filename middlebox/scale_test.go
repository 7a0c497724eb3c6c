package middlebox

import (
	"net"
	"net/netip"
	"testing"
)

// Ten thousand internal endpoints at once: each has an external port of its
// own, and keeps it towards another server.
func TestTenThousandMappings(t *testing.T) {
	const endpoints, first = 10_000, 20_000
	for _, ports := range []Ports{PreservePorts, RandomPorts, SequentialPorts} {
		t.Run(string(ports), func(t *testing.T) {
			b := Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: ports}
			l := newLab(t, b, b)
			servers := []*net.UDPConn{l.udp("s1"), l.udp("s2")}
			seen := map[netip.AddrPort]int{}
			for _, server := range servers {
				for i := range endpoints {
					c := l.udpAt("alice", uint16(first+i))
					outside := l.observe(c, server)
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
					if owner, ok := seen[outside]; !ok && server == servers[0] {
						seen[outside] = i
					} else if owner != i || !ok {
						t.Fatalf("endpoint %d has %v, which is that of endpoint %d (known: %v)", i, outside, owner, ok)
					}
				}
			}
			if len(seen) != endpoints {
				t.Errorf("%d external endpoints, want %d", len(seen), endpoints)
			}
		})
	}
}

// udpAt opens a socket at a port of a host, which the caller closes.
func (l *lab) udpAt(host string, port uint16) (c *net.UDPConn) {
	l.Helper()
	if err := l.space(host).Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.addr(host), port)))
		return err
	}); err != nil {
		l.Fatal(err)
	}
	return c
}
