package packet

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A block that doesn't hold the packets that it announces loses the rest, and
// they are counted.
func TestBrokenBlock(t *testing.T) {
	const first, header, length = 48, 96, 60
	for _, c := range []struct {
		name  string
		spoil func(r *Blocks, second int)
	}{
		{"a packet that runs over", func(r *Blocks, second int) { *r.word(second + packetSnap) = BlockBytes }},
		{"a header that runs over", func(r *Blocks, second int) { *r.word(first + packetNext) = BlockBytes - first - packetHeader + 1 }},
		{"a packet far outside", func(r *Blocks, second int) { *r.word(first + packetNext) = 1<<32 - 1 }},
	} {
		// The ring is of words, as the kernel's is.
		words := make([]uint64, BlockBytes/8)
		r := &Blocks{ring: ring{fd: -1, memory: unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), BlockBytes)}, blocks: 1}
		*r.word(blockStatus), *r.word(blockPackets), *r.word(blockFirst) = unix.TP_STATUS_USER, 3, first
		for n := range 3 {
			at := first + n*(header+64)
			*r.word(at + packetNext), *r.word(at + packetSnap), *r.word(at + packetLength) = header+64, length, length
			*r.word(at + packetMAC) = header
		}
		c.spoil(r, first+header+64)
		read := 0
		r.Drain(func(p Packet) {
			if read++; len(p.Data) != length || p.Length != length {
				t.Errorf("%s: packet of %d bytes of %d", c.name, len(p.Data), p.Length)
			}
		})
		if _, dropped, err := r.Count(); read != 1 || dropped != 2 || err != nil {
			t.Errorf("%s: %d packets read, %d dropped, %v; want 1 and 2", c.name, read, dropped, err)
		}
	}
}
