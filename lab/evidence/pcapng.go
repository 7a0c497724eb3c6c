package evidence

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Numbers of the pcapng format, draft-ietf-opsawg-pcapng-03: block types
// (section 11.1), option codes (sections 3.5, 4.2 and 4.6) and the link type
// of Ethernet (draft-ietf-opsawg-pcaplinktype).
const (
	blockSection    = 0x0A0D0D0A
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6

	byteOrderMagic = 0x1A2B3C4D

	optionEnd        = 0
	optionName       = 2 // if_name
	optionResolution = 9 // if_tsresol
	optionReceived   = 4 // isb_ifrecv
	optionDropped    = 5 // isb_ifdrop

	linkEthernet = 1
	nanoseconds  = 9 // if_tsresol: 10^-9 s
)

// CaptureWriter writes packets of several interfaces as pcapng: one section,
// little-endian, Ethernet, nanosecond times. It is not safe for concurrent
// use, and buffers: Flush hands on what is buffered.
type CaptureWriter struct {
	w          *bufio.Writer
	interfaces int
	written    int64
	block      []byte
}

// NewCaptureWriter writes the section header and one interface description
// for each name, in that order.
func NewCaptureWriter(w io.Writer, interfaces []string) (*CaptureWriter, error) {
	c := &CaptureWriter{w: bufio.NewWriterSize(w, 256<<10), interfaces: len(interfaces)}
	c.begin(blockSection)
	c.u32(byteOrderMagic)
	c.u32(1) // version 1.0: major in the low half, minor in the high
	c.u32(0xffffffff)
	c.u32(0xffffffff) // the section's length is not given
	if err := c.end(); err != nil {
		return nil, err
	}
	for _, name := range interfaces {
		c.begin(blockInterface)
		c.u32(linkEthernet)
		c.u32(0) // no limit on the packet length
		c.option(optionName, []byte(name))
		c.option(optionResolution, []byte{nanoseconds})
		c.option(optionEnd, nil)
		if err := c.end(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Packet writes a packet of the interface with that index. length is the
// packet's on the wire, and data what was captured of it.
func (c *CaptureWriter) Packet(index int, at time.Time, length int, data []byte) error {
	if index < 0 || index >= c.interfaces {
		return fmt.Errorf("write packet: interface %d of %d", index, c.interfaces)
	}
	nano := uint64(at.UnixNano())
	c.begin(blockPacket)
	c.u32(uint32(index))
	c.u32(uint32(nano >> 32))
	c.u32(uint32(nano))
	c.u32(uint32(len(data)))
	c.u32(uint32(max(length, len(data))))
	c.padded(data)
	return c.end()
}

// Statistics writes how many packets the interface received and dropped.
func (c *CaptureWriter) Statistics(index int, at time.Time, received, dropped uint64) error {
	nano := uint64(at.UnixNano())
	c.begin(blockStatistics)
	c.u32(uint32(index))
	c.u32(uint32(nano >> 32))
	c.u32(uint32(nano))
	c.option(optionReceived, binary.LittleEndian.AppendUint64(nil, received))
	c.option(optionDropped, binary.LittleEndian.AppendUint64(nil, dropped))
	c.option(optionEnd, nil)
	return c.end()
}

// Written is how many bytes were written so far, buffered ones included.
func (c *CaptureWriter) Written() int64 { return c.written }

// Flush hands on what is buffered.
func (c *CaptureWriter) Flush() error {
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

func (c *CaptureWriter) begin(kind uint32) {
	c.block = c.block[:0]
	c.u32(kind)
	c.u32(0) // the length, known at the end
}

func (c *CaptureWriter) u32(v uint32) { c.block = binary.LittleEndian.AppendUint32(c.block, v) }

// padded appends data and zeros up to a multiple of four bytes.
func (c *CaptureWriter) padded(data []byte) {
	c.block = append(c.block, data...)
	for len(c.block)%4 != 0 {
		c.block = append(c.block, 0)
	}
}

func (c *CaptureWriter) option(code uint16, value []byte) {
	c.block = binary.LittleEndian.AppendUint16(c.block, code)
	c.block = binary.LittleEndian.AppendUint16(c.block, uint16(len(value)))
	c.padded(value)
}

func (c *CaptureWriter) end() error {
	length := uint32(len(c.block) + 4)
	c.u32(length)
	binary.LittleEndian.PutUint32(c.block[4:], length)
	c.written += int64(len(c.block))
	if _, err := c.w.Write(c.block); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}
