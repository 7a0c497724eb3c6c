// Package media carries a call's media: RTP (RFC 3550) in SRTP with AES-256-GCM
// (RFC 3711, RFC 7714), keyed from the call's end-to-end TLS connection in the
// manner of RFC 5764, so that whatever carries the packets can neither read
// nor change them.
//
// A packet is 67 bytes, as Skype's voice packets of 2004 were (BS04 §4.5):
// 12 bytes of RTP header, 39 of media, 16 of authentication tag. The package
// knows no socket: it turns payloads into packets, packets into statistics,
// and paces the 2004 load. Over a stream each packet goes behind a 2-byte
// length (RFC 4571), which makes the 69 bytes that BS04 saw over TCP.
package media

import "time"

// Sizes of a packet, in bytes.
const (
	HeaderSize  = 12                                 // RTP without CSRC or extension, RFC 3550 §5.1
	PayloadSize = 39                                 // media in a packet of the 2004 load
	TagSize     = 16                                 // AEAD_AES_256_GCM, RFC 7714 §13
	PacketSize  = HeaderSize + PayloadSize + TagSize // 67: UDP payload of a voice packet, BS04 §4.5
	MaxPacket   = 1400                               // larger packets are refused everywhere
)

// Rate is the packets a second that the 2004 load sends in each direction:
// BS04 §4.5 counts about 140 both ways.
const Rate = 70

// ClockRate is the RTP timestamp's rate in Hz: wideband voice, sampled at
// 16 kHz.
const ClockRate = 16000

// payloadType is the first of the dynamic RTP payload types, RFC 3551 §6.
const payloadType = 96

// instant is when packet n of the load is due after its start, without the
// error that adding a rounded interval n times would gather.
func instant(n int) time.Duration {
	return time.Duration(int64(n) * int64(time.Second) / Rate)
}

// timestamp is the RTP timestamp of packet n of the load, relative to the
// first one.
func timestamp(n int) uint32 {
	return uint32(uint64(n) * ClockRate / Rate)
}
