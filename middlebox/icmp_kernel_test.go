package middlebox

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flow is a packet's protocol and endpoints, as the error about it quotes them.
type flow struct {
	proto    Protocol
	from, to netip.AddrPort
}

// quote returns the IPv4 header and the first 8 bytes of the payload, which is
// what every ICMP error has of the packet that it is about (RFC 792).
func (f flow) quote() []byte {
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, numbers[f.proto]
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], f.from.Addr().AsSlice())
	copy(b[16:], f.to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
	binary.BigEndian.PutUint16(b[20:], f.from.Port())
	binary.BigEndian.PutUint16(b[22:], f.to.Port())
	if f.proto == UDP {
		binary.BigEndian.PutUint16(b[24:], 8)
	}
	return b
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// icmp opens a raw socket on a host.
func (l *lab) icmp(host string) (c *net.IPConn) {
	l.Helper()
	if err := l.space(host).Do(func() (err error) {
		c, err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: l.addr(host).AsSlice()})
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

const icmpUnreachable = 3 // RFC 792

// unreachable returns "port unreachable" about a packet.
func unreachable(about flow) []byte {
	message := append([]byte{icmpUnreachable, icmpPortUnreachable, 0, 0, 0, 0, 0, 0}, about.quote()...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return message
}

// complain sends an ICMP message.
func (l *lab) complain(from *net.IPConn, to netip.Addr, message []byte) {
	l.Helper()
	if _, err := from.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		l.Fatal(err)
	}
}

// complaint returns the sender of the next such error and what it is about. The
// checksums of the error and of the header that it quotes must be right.
func (l *lab) complaint(c *net.IPConn) (from netip.Addr, about flow) {
	l.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		l.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, sender, err := c.ReadFromIP(buf)
		if err != nil {
			l.Fatalf("receive an ICMP error: %v", err)
		}
		if n < 36 || buf[0] != icmpUnreachable {
			continue
		}
		quoted := buf[8:n]
		if checksum(buf[:n&^1]) != 0 || checksum(quoted[:20]) != 0 {
			l.Errorf("wrong checksum in %x", buf[:n])
		}
		from, _ = netip.AddrFromSlice(sender.IP.To4())
		endpoint := func(address, port int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(quoted[address:])), binary.BigEndian.Uint16(quoted[port:]))
		}
		about = flow{UDP, endpoint(12, 20), endpoint(16, 22)}
		if quoted[9] == unix.IPPROTO_TCP {
			about.proto = TCP
		}
		return from, about
	}
}

// RFC 5508, REQ-3 to REQ-5: an error about a packet that has a mapping goes
// where that packet's sender is, quoted as that sender knows it, whoever on the
// way sends the error; one about a packet without a mapping, or with a wrong
// checksum, goes nowhere.
func TestICMPErrors(t *testing.T) {
	for _, preset := range []string{"full-cone", "restricted-cone", "port-restricted", "symmetric"} {
		for _, p := range transports {
			t.Run(preset+" "+string(p), func(t *testing.T) {
				t.Parallel()
				b, _ := Preset(preset)
				l := newLab(t, b, b)
				inside, server, outside := l.conversation(p)
				box, _ := l.plan.Box("a")
				alice, s1, s2 := l.icmp("alice"), l.icmp("s1"), l.icmp("s2")

				// Inwards: the server, and a router before it, about what alice sent.
				for _, from := range []struct {
					host string
					conn *net.IPConn
				}{{"s1", s1}, {"s2", s2}} {
					l.complain(from.conn, box.WAN[0], unreachable(flow{p, outside, server}))
					sender, about := l.complaint(alice)
					if want := (flow{p, inside, server}); sender != l.addr(from.host) || about != want {
						t.Errorf("alice got an error from %v about %v, want one from %s about %v", sender, about, from.host, want)
					}
				}
				before := l.dropped("a", UnsolicitedRule)
				l.complain(s1, box.WAN[0], unreachable(flow{p, netip.AddrPortFrom(outside.Addr(), outside.Port()^1), server}))
				damaged := unreachable(flow{p, outside, server})
				damaged[2]++
				l.complain(s1, box.WAN[0], damaged)
				l.untilDropped("a", UnsolicitedRule, before+2)

				// Outwards: alice about what the server sent.
				l.complain(alice, server.Addr(), unreachable(flow{p, server, inside}))
				sender, about := l.complaint(s1)
				if want := (flow{p, server, outside}); sender != box.WAN[0] || about != want {
					t.Errorf("s1 got an error from %v about %v, want one from %v about %v", sender, about, box.WAN[0], want)
				}
				before = l.dropped("a", UntranslatedRule)
				l.complain(alice, server.Addr(), unreachable(flow{p, server, netip.AddrPortFrom(inside.Addr(), inside.Port()^1)}))
				l.untilDropped("a", UntranslatedRule, before+1)
			})
		}
	}
}

// conversation makes a flow between alice and s1 that goes both ways, and
// returns alice's endpoint, s1's, and alice's as s1 sees it.
func (l *lab) conversation(p Protocol) (inside, server, outside netip.AddrPort) {
	l.Helper()
	if p == TCP {
		client, accepted := l.tcp("alice", "s1")
		exchange(l.T, client, accepted, "hello")
		endpoint := func(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
		return endpoint(client.LocalAddr()), endpoint(accepted.LocalAddr()), endpoint(accepted.RemoteAddr())
	}
	alice, s1 := l.udp("alice"), l.udp("s1")
	outside = l.observe(alice, s1)
	l.send(s1, outside, "hello")
	l.receive(alice)
	return local(alice), local(s1), outside
}
