package media

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// Sender makes the packets of one direction. It is not safe for concurrent
// use.
type Sender struct {
	context *srtp.Context
	header  rtp.Header
	base    uint32 // timestamp of the first packet, random as in RFC 3550 §5.1
	plain   []byte
	sealed  []byte
}

// NewSender makes a sender whose SSRC, first sequence number and first
// timestamp are random, as RFC 3550 §5.1 wants.
func NewSender(master Master) (*Sender, error) {
	context, err := srtp.CreateContext(master.Key[:], master.Salt[:], profile)
	if err != nil {
		return nil, fmt.Errorf("make SRTP sender: %w", err)
	}
	var random [10]byte
	rand.Read(random[:])
	return &Sender{
		context: context,
		header: rtp.Header{
			Version:     2,
			PayloadType: payloadType,
			SSRC:        binary.BigEndian.Uint32(random[0:4]),
			// RFC 3711 §3.3.1: a first number in the lower half keeps the two
			// ends' guesses of the rollover counter equal if the first
			// packets are lost.
			SequenceNumber: binary.BigEndian.Uint16(random[4:6]) & 0x7fff,
		},
		base:   binary.BigEndian.Uint32(random[6:10]),
		plain:  make([]byte, 0, MaxPacket),
		sealed: make([]byte, 0, MaxPacket),
	}, nil
}

// Packet makes the next packet out of a payload that was taken at timestamp
// (in units of ClockRate, relative to the first packet). The packet is valid
// until the next call. It fails if the payload is too large for MaxPacket or
// the keys are used up (2^48 packets, RFC 3711 §9.2).
func (s *Sender) Packet(payload []byte, timestamp uint32) ([]byte, error) {
	if len(payload) > MaxPacket-HeaderSize-TagSize {
		return nil, fmt.Errorf("make media packet: payload of %d bytes is too large", len(payload))
	}
	s.header.Timestamp = s.base + timestamp
	n, err := s.header.MarshalTo(s.plain[:HeaderSize])
	if err != nil {
		return nil, fmt.Errorf("make media packet: %w", err)
	}
	s.plain = append(s.plain[:n], payload...)
	sealed, err := s.context.EncryptRTP(s.sealed[:cap(s.sealed)], s.plain, &s.header)
	if err != nil {
		return nil, fmt.Errorf("protect media packet: %w", err)
	}
	s.header.SequenceNumber++
	return sealed, nil
}
