package probe

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Control bits of a segment, RFC 9293 §3.1.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// Sizes of headers without options, in bytes: RFC 791 §3.1, RFC 768, RFC 9293
// §3.1 and RFC 792.
const (
	ipHeader   = 20
	udpHeader  = 8
	tcpHeader  = 20
	icmpHeader = 8
)

// window is what each segment offers: more than the probe ever sends, so that
// no box finds a segment out of it.
const window = 1 << 15

// segment is a TCP segment (RFC 9293 §3.1), without options.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    uint8
	payload  []byte
}

// length is what a segment takes of the sequence's numbers.
func (s segment) length() uint32 {
	n := uint32(len(s.payload))
	if s.flags&flagSYN != 0 {
		n++
	}
	if s.flags&flagFIN != 0 {
		n++
	}
	return n
}

// append writes the segment as the payload of an IPv4 packet.
func (s segment) append(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, s.from.Port())
	b = binary.BigEndian.AppendUint16(b, s.to.Port())
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.ack)
	b = append(b, tcpHeader/4<<4, s.flags)
	b = binary.BigEndian.AppendUint16(b, window)
	b = append(b, 0, 0, 0, 0) // checksum, urgent pointer
	b = append(b, s.payload...)
	binary.BigEndian.PutUint16(b[start+16:], ^sum(b[start:], pseudo(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, len(b)-start)))
	return b
}

// parseSegment reads an IPv4 packet. It says whether that is a TCP segment,
// unfragmented and with the right checksum.
func parseSegment(packet []byte) (segment, bool) {
	from, to, b, ok := parseIP(packet, unix.IPPROTO_TCP)
	if !ok || len(b) < tcpHeader || int(b[12]>>4)*4 < tcpHeader || int(b[12]>>4)*4 > len(b) {
		return segment{}, false
	}
	if sum(b, pseudo(from, to, unix.IPPROTO_TCP, len(b))) != 0xffff {
		return segment{}, false
	}
	return segment{
		from:  netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)),
		to:    netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
		seq:   binary.BigEndian.Uint32(b[4:]),
		ack:   binary.BigEndian.Uint32(b[8:]),
		flags: b[13], payload: b[int(b[12]>>4)*4:],
	}, true
}

// parseIP returns the addresses and the payload of an IPv4 packet of a protocol.
func parseIP(packet []byte, protocol uint8) (from, to netip.Addr, payload []byte, ok bool) {
	if len(packet) < ipHeader || packet[0]>>4 != 4 || packet[9] != protocol {
		return from, to, nil, false
	}
	header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if header < ipHeader || header > total || total > len(packet) || binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
		return from, to, nil, false
	}
	return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), packet[header:total], true
}

// pseudo is the sum of TCP's pseudo header, RFC 9293 §3.1.
func pseudo(from, to netip.Addr, protocol uint8, length int) uint16 {
	b := append(from.AsSlice(), to.AsSlice()...)
	b = append(b, 0, protocol)
	return sum(binary.BigEndian.AppendUint16(b, uint16(length)), 0)
}

// sum is the one's complement sum of RFC 1071, beginning with another one.
func sum(b []byte, begin uint16) uint16 {
	total := uint32(begin)
	for ; len(b) > 1; b = b[2:] {
		total += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		total += uint32(b[0]) << 8
	}
	for total>>16 != 0 {
		total = total&0xffff + total>>16
	}
	return uint16(total)
}
