package probe

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	messageFrom = netip.MustParseAddrPort("10.0.1.2:20000")
	messageTo   = netip.MustParseAddrPort("198.18.1.1:443")
)

// packetOf is an IPv4 packet with a payload.
func packetOf(protocol uint8, payload []byte) []byte {
	return append(appendIP(nil, protocol, messageFrom.Addr(), messageTo.Addr(), len(payload)), payload...)
}

// The messages byte for byte, there and back.
func TestMessages(t *testing.T) {
	s := segment{from: messageFrom, to: messageTo, seq: 0x01020304, ack: 0x05060708, flags: flagACK | flagPSH, payload: []byte("abc")}
	const wantSegment = "\x4e\x20\x01\xbb\x01\x02\x03\x04\x05\x06\x07\x08\x50\x18\x80\x00\x39\x62\x00\x00abc" // RFC 9293 §3.1
	if got := s.append(nil); string(got) != wantSegment {
		t.Errorf("segment % x, want % x", got, wantSegment)
	}
	if got, ok := parseSegment(packetOf(unix.IPPROTO_TCP, s.append(nil))); !ok || !reflect.DeepEqual(got, s) {
		t.Errorf("segment %+v, %v; want %+v", got, ok, s)
	}
	e := icmpError{
		kind: icmpUnreachable, code: icmpPortUnreachable, protocol: unix.IPPROTO_UDP,
		from: messageFrom, to: netip.AddrPortFrom(messageTo.Addr(), 53), payload: []byte("abc"),
	}
	const wantError = "\x03\x03\xea\x39\x00\x00\x00\x00" + // RFC 792
		"\x45\x00\x00\x1f\x00\x00\x00\x00\x40\x11\xa8\xb9\x0a\x00\x01\x02\xc6\x12\x01\x01" + // RFC 791 §3.1
		"\x4e\x20\x00\x35\x00\x0b\x00\x00abc"
	if got := e.append(nil); string(got) != wantError {
		t.Errorf("ICMP error % x, want % x", got, wantError)
	}
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		e.protocol = protocol
		sender, got, ok := parseICMPError(packetOf(unix.IPPROTO_ICMP, e.append(nil)))
		if !ok || sender != messageFrom.Addr() || !reflect.DeepEqual(got, e) {
			t.Errorf("ICMP error of %v: %+v, %v; want %+v", sender, got, ok, e)
		}
	}
	echo := appendEcho(nil, []byte("abc"))
	if want := "\x08\x00\x33\x9d\x00\x00\x00\x00abc"; string(echo) != want { // RFC 792
		t.Errorf("echo request % x, want % x", echo, want)
	}
	reply := bytes.Clone(echo)
	reply[0], reply[2] = icmpEchoReply, reply[2]+8 // the sum without the type
	if _, payload, ok := parseEchoReply(packetOf(unix.IPPROTO_ICMP, reply)); !ok || string(payload) != "abc" {
		t.Errorf("echo reply: %q, %v", payload, ok)
	}
	if _, _, ok := parseEchoReply(packetOf(unix.IPPROTO_ICMP, echo)); ok {
		t.Error("an echo request is taken for its reply")
	}
}

// A message with any bit turned is none, or not the same.
func TestMessagesDamaged(t *testing.T) {
	s := segment{from: messageFrom, to: messageTo, seq: 1, flags: flagSYN, payload: []byte("abcd")}
	packet := packetOf(unix.IPPROTO_TCP, s.append(nil))
	for bit := ipHeader * 8; bit < len(packet)*8; bit++ {
		damaged := bytes.Clone(packet)
		damaged[bit/8] ^= 1 << (bit % 8)
		if got, ok := parseSegment(damaged); ok {
			t.Errorf("with bit %d turned, it is a segment %+v", bit, got)
		}
	}
	e := icmpError{kind: icmpTimeExceeded, protocol: unix.IPPROTO_TCP, from: messageFrom, to: messageTo, payload: []byte("abcd")}
	packet = packetOf(unix.IPPROTO_ICMP, e.append(nil))
	for bit := ipHeader * 8; bit < len(packet)*8; bit++ {
		damaged := bytes.Clone(packet)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, got, ok := parseICMPError(damaged); ok {
			t.Errorf("with bit %d turned, it is an error %+v", bit, got)
		}
	}
}

func FuzzParseMessages(f *testing.F) {
	s := segment{from: messageFrom, to: messageTo, flags: flagACK, payload: []byte("abc")}
	e := icmpError{kind: icmpUnreachable, protocol: unix.IPPROTO_TCP, from: messageFrom, to: messageTo, payload: []byte("abc")}
	f.Add(packetOf(unix.IPPROTO_TCP, s.append(nil)))
	f.Add(packetOf(unix.IPPROTO_ICMP, e.append(nil)))
	f.Add(packetOf(unix.IPPROTO_ICMP, appendEcho(nil, []byte("abc"))))
	short := e.append(nil) // what it quotes has a header of no length
	short[icmpHeader+ipHeader+12] = 0
	short[2], short[3] = 0, 0
	binary.BigEndian.PutUint16(short[2:], ^sum(short, 0))
	f.Add(packetOf(unix.IPPROTO_ICMP, short))
	watch := NewWatch()
	f.Fuzz(func(t *testing.T, packet []byte) {
		if got, ok := parseSegment(packet); ok && (!got.from.Addr().Is4() || len(got.payload) > len(packet)-ipHeader-tcpHeader) {
			t.Errorf("% x is a segment %+v", packet, got)
		}
		if _, got, ok := parseICMPError(packet); ok {
			if len(got.payload) > len(packet)-icmpHeader-2*ipHeader-udpHeader {
				t.Errorf("% x is an error %+v", packet, got)
			}
			again := packetOf(unix.IPPROTO_ICMP, got.append(nil))
			if _, second, ok := parseICMPError(again); !ok || second.from != got.from || !bytes.Equal(second.payload, got.payload) {
				t.Errorf("% x is %+v, and written again % x", packet, got, again)
			}
		}
		parseEchoReply(packet)
		watch.dropped("box", "rule", packet)
	})
}
