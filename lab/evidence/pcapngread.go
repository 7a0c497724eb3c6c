package evidence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds on what a capture file may make the reader hold.
const (
	maxBlock      = 1 << 20 // one block; a packet is at most 65,535 bytes
	maxInterfaces = 4096
)

// CapturedPacket is a packet as a tap saw it.
type CapturedPacket struct {
	Time time.Time
	// Tap is the interface's name, such as "alice/eth0".
	Tap string
	// Length is the packet's on the wire, Data what was captured of it. Data
	// is valid until the next packet is read.
	Length int
	Data   []byte
}

// ReadCapture calls f for each packet of a pcapng stream, in order. It reads
// what CaptureWriter writes: little-endian sections of Ethernet interfaces
// with nanosecond times; blocks of other kinds are passed over. A stream that
// ends inside a block gives io.ErrUnexpectedEOF, wrapped, after all whole
// blocks before.
func ReadCapture(r io.Reader, f func(CapturedPacket) error) error {
	in := bufio.NewReaderSize(r, 256<<10)
	var (
		taps   []string
		buffer []byte
		opened bool
	)
	for at := int64(0); ; {
		kind, body, err := readBlock(in, &buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			switch {
			case kind == blockSection:
				opened, taps = true, taps[:0]
				err = checkSection(body)
			case !opened:
				err = errors.New("not a pcapng file: it does not begin with a section header")
			case kind == blockInterface && len(taps) == maxInterfaces:
				err = fmt.Errorf("more than %d interfaces", maxInterfaces)
			case kind == blockInterface:
				var name string
				name, err = parseInterface(body)
				taps = append(taps, name)
			case kind == blockPacket:
				var p CapturedPacket
				if p, err = parsePacketBlock(body, taps); err == nil {
					err = f(p)
				}
			}
		}
		if err != nil {
			return fmt.Errorf("read capture at byte %d: %w", at, err)
		}
		at += int64(len(body)) + 12
	}
}

// readBlock reads one block and returns its type and its body. At the end of
// the stream it gives io.EOF, inside a block io.ErrUnexpectedEOF.
func readBlock(in *bufio.Reader, buffer *[]byte) (kind uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	kind = binary.LittleEndian.Uint32(head[:])
	length := binary.LittleEndian.Uint32(head[4:])
	if length < 12 || length%4 != 0 || length > maxBlock {
		return 0, nil, fmt.Errorf("block of type %#x with length %d", kind, length)
	}
	need := int(length) - 8
	if cap(*buffer) < need {
		*buffer = make([]byte, need)
	}
	whole := (*buffer)[:need]
	if _, err := io.ReadFull(in, whole); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if end := binary.LittleEndian.Uint32(whole[need-4:]); end != length {
		return 0, nil, fmt.Errorf("block of length %d ends with length %d", length, end)
	}
	return kind, whole[:need-4], nil
}

func checkSection(body []byte) error {
	if len(body) < 16 {
		return errors.New("section header is too short")
	}
	if binary.LittleEndian.Uint32(body) != byteOrderMagic {
		return errors.New("section is not little-endian pcapng")
	}
	if major := binary.LittleEndian.Uint16(body[4:]); major != 1 {
		return fmt.Errorf("pcapng version %d", major)
	}
	return nil
}

func parseInterface(body []byte) (name string, err error) {
	if len(body) < 8 {
		return "", errors.New("interface description is too short")
	}
	if link := binary.LittleEndian.Uint16(body); link != linkEthernet {
		return "", fmt.Errorf("link type %d is not Ethernet", link)
	}
	resolution := byte(6) // the format's default: microseconds
	for rest := body[8:]; len(rest) >= 4; {
		code := binary.LittleEndian.Uint16(rest)
		length := int(binary.LittleEndian.Uint16(rest[2:]))
		if code == optionEnd {
			break
		}
		padded := (length + 3) &^ 3
		if len(rest) < 4+padded {
			return "", errors.New("interface option runs over its block")
		}
		value := rest[4 : 4+length]
		switch {
		case code == optionName:
			name = string(value)
		case code == optionResolution && length == 1:
			resolution = value[0]
		}
		rest = rest[4+padded:]
	}
	if resolution != nanoseconds {
		return "", fmt.Errorf("interface %q has time resolution %d instead of nanoseconds", name, resolution)
	}
	return name, nil
}

func parsePacketBlock(body []byte, taps []string) (CapturedPacket, error) {
	if len(body) < 20 {
		return CapturedPacket{}, errors.New("packet block is too short")
	}
	index := binary.LittleEndian.Uint32(body)
	nano := uint64(binary.LittleEndian.Uint32(body[4:]))<<32 | uint64(binary.LittleEndian.Uint32(body[8:]))
	captured := binary.LittleEndian.Uint32(body[12:])
	if int64(index) >= int64(len(taps)) {
		return CapturedPacket{}, fmt.Errorf("packet of interface %d of %d", index, len(taps))
	}
	if int64(captured) > int64(len(body)-20) {
		return CapturedPacket{}, fmt.Errorf("packet of %d bytes runs over its block", captured)
	}
	if nano > 1<<63-1 {
		return CapturedPacket{}, errors.New("packet time is out of range")
	}
	return CapturedPacket{
		Time:   time.Unix(0, int64(nano)),
		Tap:    taps[index],
		Length: int(binary.LittleEndian.Uint32(body[16:])),
		Data:   body[20 : 20+captured],
	}, nil
}
