package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame bounds a frame in bytes without its length: 64 KiB of payload and
// 4 KiB for what stands around it.
const MaxFrame = 68 << 10

// lengthSize is the size of a frame's length prefix, big-endian.
const lengthSize = 4

// Types of frames.
const (
	FrameRequest uint8 = iota + 1
	FrameAnswer
	FrameError
	FrameNotice
	FramePing
	FramePong
)

// Frame is one message on a link: 4 bytes of length, then a CBOR array.
type Frame struct {
	_      struct{} `cbor:",toarray"`
	Type   uint8
	ID     uint64 // joins request, answer and error; ping and pong
	Method string // of a request or notice
	Code   int    // of an error
	Text   string // of an error
	Body   cbor.RawMessage
}

// ErrFrame marks a frame that breaks the format.
var ErrFrame = errors.New("invalid frame")

// Bounds of a frame's texts in bytes.
const (
	maxMethod = 64
	maxText   = 1024
)

// empty is the body of a frame that has none: CBOR null.
var empty = cbor.RawMessage{0xf6}

// Append appends the frame with its length.
func (f *Frame) Append(b []byte) ([]byte, error) {
	g := *f
	if len(g.Body) == 0 {
		g.Body = empty
	}
	if len(g.Text) > maxText {
		g.Text = g.Text[:maxText]
	}
	body, err := Marshal(&g)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, len(body), MaxFrame)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...), nil
}

// ReadFrame reads one frame. At the end of the stream it returns io.EOF
// between frames and io.ErrUnexpectedEOF within one.
func ReadFrame(r io.Reader) (*Frame, error) {
	var prefix [lengthSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(prefix[:])
	if n == 0 || n > MaxFrame {
		return nil, fmt.Errorf("%w: length %d, want 1 to %d", ErrFrame, n, MaxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return ParseFrame(b)
}

// ParseFrame reads a frame without its length.
func ParseFrame(b []byte) (*Frame, error) {
	f := new(Frame)
	if err := Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	switch {
	case f.Type < FrameRequest || f.Type > FramePong:
		return nil, fmt.Errorf("%w: type %d", ErrFrame, f.Type)
	case len(f.Method) > maxMethod || len(f.Text) > maxText:
		return nil, fmt.Errorf("%w: a text of %d bytes", ErrFrame, max(len(f.Method), len(f.Text)))
	}
	return f, nil
}
