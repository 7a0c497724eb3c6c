package packet

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

const (
	// BlockBytes is the size of a block, which holds a few frames of Ethernet's
	// size (offloads are off), or some 40 of the 2004 load. Blocks are small
	// because the kernel hands one over each timeout, however empty: their number
	// is how long the reader may be kept waiting.
	BlockBytes = 8 << 10
	// frameBytes matters to the kernel only as a divisor of the block: in
	// version 3 of the ring packets take as much room as they need.
	frameBytes = 2048
)

// Offsets within a block of the ring and within a packet's header, from
// linux/if_packet.h: struct tpacket_block_desc with struct tpacket_hdr_v1, and
// struct tpacket3_hdr with, behind it, struct sockaddr_ll.
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16

	packetNext    = 0
	packetSeconds = 4
	packetNanos   = 8
	packetSnap    = 12
	packetLength  = 16
	packetMAC     = 24
	packetType    = 48 + addressType
	packetHeader  = 48 + addressBytes
)

// Blocks is a TPACKET_V3 ring: the kernel fills blocks in order and hands each
// over when it is full or older than the timeout; the reader takes them in the
// same order and gives them back. One goroutine at a time uses it.
type Blocks struct {
	ring
	blocks int
	next   int // the block to be read next
	taken  uint64
}

// OpenBlocks opens a ring of at least some bytes on an interface of a namespace.
// The kernel counts the timeout in whole milliseconds, one at least.
func OpenBlocks(space *ns.Handle, name string, bytes int, timeout time.Duration) (*Blocks, error) {
	r := &Blocks{blocks: max(1, (bytes+BlockBytes-1)/BlockBytes)}
	err := r.open(space, name, r.blocks*BlockBytes, func() error { return r.setUp(timeout) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Blocks) setUp(timeout time.Duration) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("choose TPACKET_V3: %w", err)
	}
	// Asked by any socket, this makes the kernel stamp packets when they come in,
	// so that whatever else tells of a packet, a drop log too, has that time.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for timestamps: %w", err)
	}
	request := unix.TpacketReq3{
		Block_size:     BlockBytes,
		Block_nr:       uint32(r.blocks),
		Frame_size:     frameBytes,
		Frame_nr:       uint32(r.blocks * (BlockBytes / frameBytes)),
		Retire_blk_tov: uint32(max(1, timeout.Milliseconds())),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make packet ring of %d KiB: %w", r.blocks*BlockBytes>>10, err)
	}
	return nil
}

// Drain hands the packets of all blocks that the kernel has handed over to f, at
// most one round of the ring.
func (r *Blocks) Drain(f func(Packet)) {
	for range r.blocks {
		base := r.next * BlockBytes
		status := r.word(base + blockStatus)
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return
		}
		r.read(base, f)
		// The count must not be taken for the next lap's before the kernel
		// opens the block again: see Waiting.
		atomic.StoreUint32(r.word(base+blockPackets), 0)
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % r.blocks
		r.taken++
	}
}

// read hands the packets of the block at base to f. Should the block not hold
// what it says, the rest of it counts as dropped.
func (r *Blocks) read(base int, f func(Packet)) {
	at, end := base+int(*r.word(base + blockFirst)), base+BlockBytes
	for count := *r.word(base + blockPackets); count > 0; count-- {
		begin, finish := end, end+1 // too long, unless the header fits
		if at+packetHeader <= end {
			begin = at + r.half(at+packetMAC)
			finish = begin + int(*r.word(at + packetSnap))
		}
		if finish > end {
			r.dropped += uint64(count)
			return
		}
		f(Packet{
			At:       time.Unix(int64(*r.word(at + packetSeconds)), int64(*r.word(at + packetNanos))),
			Length:   int(*r.word(at + packetLength)),
			Outgoing: r.memory[at+packetType] == unix.PACKET_OUTGOING,
			Data:     r.memory[begin:finish],
		})
		at += int(*r.word(at + packetNext))
	}
}

// Taken is how many blocks have been read.
func (r *Blocks) Taken() uint64 { return r.taken }

// Waiting says, right after Drain, whether the kernel holds packets in a block
// that it has not handed over yet. It counts a packet in its block before it
// copies it, and the counter lies in the shared memory.
func (r *Blocks) Waiting() bool {
	base := r.next * BlockBytes
	return atomic.LoadUint32(r.word(base+blockStatus))&unix.TP_STATUS_USER != 0 ||
		atomic.LoadUint32(r.word(base+blockPackets)) > 0
}
