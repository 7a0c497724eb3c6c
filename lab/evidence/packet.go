package evidence

import (
	"encoding/binary"
	"net/netip"
)

// Packet is what the headers of an IPv4 packet say.
type Packet struct {
	// Transport is UDP or TCP.
	Transport string
	Tuple     Tuple
	// Payload is how many bytes of transport payload the packet has on the
	// wire, by its length fields.
	Payload int
	// Seq and Flags are TCP's, RFC 9293 section 3.1.
	Seq   uint32
	Flags uint8
	// More says that more fragments follow, so that Payload is this
	// fragment's only.
	More bool
	// ID is the identification field, which joins fragments.
	ID uint16
}

// The TCP flags, RFC 9293 section 3.1.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
)

const (
	etherIPv4   = 0x0800
	etherHeader = 14
	protocolTCP = 6
	protocolUDP = 17
)

// ParseFrame reads the headers of an Ethernet frame that holds an IPv4 packet.
// ok is false for anything but UDP and TCP over IPv4, and for a fragment that
// is not the first.
func ParseFrame(frame []byte) (p Packet, ok bool) {
	if len(frame) < etherHeader || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return Packet{}, false
	}
	return ParsePacket(frame[etherHeader:])
}

// ParsePacket is ParseFrame for a packet without a link header. Of the packet
// it needs the headers only.
func ParsePacket(ip []byte) (p Packet, ok bool) {
	h, ok := parseIPv4(ip)
	if !ok || h.offset != 0 {
		return Packet{}, false
	}
	rest := ip[h.header:]
	if len(rest) < 8 {
		return Packet{}, false
	}
	p.Tuple.Src = netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(rest))
	p.Tuple.Dst = netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(rest[2:]))
	p.More, p.ID = h.more, h.id
	switch h.protocol {
	case protocolUDP:
		p.Transport = UDP
		p.Payload = h.length - h.header - 8
	case protocolTCP:
		if len(rest) < 20 {
			return Packet{}, false
		}
		p.Transport = TCP
		p.Seq = binary.BigEndian.Uint32(rest[4:])
		p.Flags = rest[13]
		p.Payload = h.length - h.header - int(rest[12]>>4)*4
	default:
		return Packet{}, false
	}
	return p, p.Payload >= 0
}

// ipv4 is the part of an IPv4 header, RFC 791 section 3.1, that matters here.
type ipv4 struct {
	src, dst netip.Addr
	protocol byte
	header   int // bytes of header
	length   int // bytes of header and payload
	id       uint16
	offset   int // bytes before this fragment
	more     bool
}

func parseIPv4(ip []byte) (h ipv4, ok bool) {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return ipv4{}, false
	}
	fragment := binary.BigEndian.Uint16(ip[6:])
	h = ipv4{
		src:      netip.AddrFrom4([4]byte(ip[12:16])),
		dst:      netip.AddrFrom4([4]byte(ip[16:20])),
		protocol: ip[9],
		header:   int(ip[0]&15) * 4,
		length:   int(binary.BigEndian.Uint16(ip[2:])),
		id:       binary.BigEndian.Uint16(ip[4:]),
		offset:   int(fragment&0x1fff) * 8,
		more:     fragment&0x2000 != 0,
	}
	return h, h.header >= 20 && h.length >= h.header && len(ip) >= h.header
}
