package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Types of ICMP messages, RFC 792.
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpEchoRequest  = 8
	icmpTimeExceeded = 11
)

// icmpPortUnreachable is a code of the type destination unreachable, RFC 792.
const icmpPortUnreachable = 3

// icmpError is an ICMP error (RFC 792) and what it quotes of the packet that it
// is about: endpoints and payload. RFC 1812 §4.3.2.3 has as much quoted as fits.
type icmpError struct {
	kind, code uint8
	protocol   uint8 // of what it is about: UDP or TCP
	from, to   netip.AddrPort
	payload    []byte
}

// equal says whether two are of one kind and about the same packet.
func (e icmpError) equal(other icmpError) bool {
	return e.kind == other.kind && e.code == other.code && e.protocol == other.protocol && e.from == other.from && e.to == other.to
}

// append writes the message as the payload of an IPv4 packet. The checksum of
// the quoted UDP datagram is left out (RFC 768), that of a segment is right.
func (e icmpError) append(b []byte) []byte {
	start := len(b)
	b = append(b, e.kind, e.code, 0, 0, 0, 0, 0, 0)
	quoted := segment{from: e.from, to: e.to, flags: flagACK, payload: e.payload}.append(nil)
	if e.protocol == unix.IPPROTO_UDP {
		quoted = binary.BigEndian.AppendUint16(nil, e.from.Port())
		quoted = binary.BigEndian.AppendUint16(quoted, e.to.Port())
		quoted = binary.BigEndian.AppendUint16(quoted, uint16(udpHeader+len(e.payload)))
		quoted = append(append(quoted, 0, 0), e.payload...)
	}
	b = append(appendIP(b, e.protocol, e.from.Addr(), e.to.Addr(), len(quoted)), quoted...)
	binary.BigEndian.PutUint16(b[start+2:], ^sum(b[start:], 0))
	return b
}

// appendIP writes the header of an IPv4 packet, RFC 791 §3.1.
func appendIP(b []byte, protocol uint8, from, to netip.Addr, payload int) []byte {
	const ttl = 64 // RFC 1700
	start := len(b)
	b = append(b, 4<<4|ipHeader/4, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipHeader+payload))
	b = append(b, 0, 0, 0, 0, ttl, protocol, 0, 0)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[start+10:], ^sum(b[start:], 0))
	return b
}

// parseICMPError reads an IPv4 packet. It says whether that is an ICMP error
// about a UDP or TCP packet, and one whose checksum and whose quoted header's
// are right.
func parseICMPError(packet []byte) (sender netip.Addr, e icmpError, ok bool) {
	sender, _, b, ok := parseIP(packet, unix.IPPROTO_ICMP)
	if !ok || len(b) < icmpHeader+ipHeader || sum(b, 0) != 0xffff {
		return sender, e, false
	}
	e = icmpError{kind: b[0], code: b[1]}
	if e.kind != icmpUnreachable && e.kind != icmpTimeExceeded {
		return sender, e, false
	}
	from, to, protocol, quoted, ok := parseQuoted(b[icmpHeader:])
	if !ok {
		return sender, e, false
	}
	e.protocol = protocol
	e.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(quoted))
	e.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(quoted[2:]))
	header := udpHeader
	if e.protocol == unix.IPPROTO_TCP {
		header = tcpHeader
		if len(quoted) > 12 {
			header = int(quoted[12]>>4) * 4
		}
		if header < tcpHeader {
			return sender, e, false
		}
	}
	if len(quoted) > header {
		e.payload = quoted[header:]
	}
	return sender, e, true
}

// parseQuoted is parseIP for what is quoted, the end of which may be missing.
func parseQuoted(b []byte) (from, to netip.Addr, protocol uint8, payload []byte, ok bool) {
	header := int(b[0]&15) * 4
	if b[0]>>4 != 4 || header < ipHeader || len(b) < header+8 || sum(b[:header], 0) != 0xffff {
		return from, to, 0, nil, false
	}
	protocol = b[9]
	if protocol != unix.IPPROTO_UDP && protocol != unix.IPPROTO_TCP {
		return from, to, 0, nil, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), protocol, b[header:], true
}

// appendEcho writes an echo request, with no identifier but its payload.
func appendEcho(b, payload []byte) []byte {
	start := len(b)
	b = append(append(b, icmpEchoRequest, 0, 0, 0, 0, 0, 0, 0), payload...)
	binary.BigEndian.PutUint16(b[start+2:], ^sum(b[start:], 0))
	return b
}

// parseEchoReply returns the payload of an echo reply, if it is one.
func parseEchoReply(packet []byte) (sender netip.Addr, payload []byte, ok bool) {
	sender, _, b, ok := parseIP(packet, unix.IPPROTO_ICMP)
	if !ok || len(b) < icmpHeader || b[0] != icmpEchoReply || sum(b, 0) != 0xffff {
		return sender, nil, false
	}
	return sender, b[icmpHeader:], true
}

// icmpWord names an ICMP error by which a packet is refused, after the codes of
// RFC 792 and RFC 1812 §5.2.7.1.
func icmpWord(kind, code uint8) string {
	if kind == icmpUnreachable {
		switch code {
		case 0:
			return "net-unreachable"
		case 1:
			return "host-unreachable"
		case icmpPortUnreachable:
			return portUnreachable
		case 9, 10, 13:
			return "prohibited"
		}
	}
	return fmt.Sprintf("icmp-%d-%d", kind, code)
}
