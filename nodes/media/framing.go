package media

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// FrameOverhead is the length prefix of a packet over a stream, RFC 4571 §2.
const FrameOverhead = 2

// AppendFrame appends a packet with its length prefix to a buffer. Packets
// above MaxPacket are the caller's mistake and cut the stream: it panics.
func AppendFrame(buffer, packet []byte) []byte {
	if len(packet) > MaxPacket {
		panic(fmt.Sprintf("media frame of %d bytes", len(packet)))
	}
	buffer = binary.BigEndian.AppendUint16(buffer, uint16(len(packet)))
	return append(buffer, packet...)
}

// FrameReader takes packets off a stream. It allocates nothing for a packet.
type FrameReader struct {
	stream *bufio.Reader
	packet [MaxPacket]byte
	prefix [FrameOverhead]byte
}

// NewFrameReader reads packets from a stream.
func NewFrameReader(stream io.Reader) *FrameReader {
	return &FrameReader{stream: bufio.NewReaderSize(stream, 2048)}
}

// Read returns the next packet, valid until the next call. It fails with the
// stream's error (io.EOF between two packets) and on a length of zero or
// above MaxPacket, after which the stream can't be read on.
func (r *FrameReader) Read() ([]byte, error) {
	if _, err := io.ReadFull(r.stream, r.prefix[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(r.prefix[:]))
	if size == 0 || size > MaxPacket {
		return nil, fmt.Errorf("media frame of %d bytes", size)
	}
	if _, err := io.ReadFull(r.stream, r.packet[:size]); err != nil {
		return nil, fmt.Errorf("read media frame: %w", err)
	}
	return r.packet[:size], nil
}
