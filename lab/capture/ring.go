package capture

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// blockBytes holds a few frames of Ethernet's size (offloads are off). Blocks
	// are small because the kernel hands one over each BlockTimeout, however
	// empty: their number is how long the reader may be kept waiting.
	blockBytes = 8 << 10
	// frameBytes matters to the kernel only as a divisor of the block: in
	// version 3 of the ring frames are as long as their packets.
	frameBytes = 2048
)

// Offsets within a block of the ring and within a packet's header, from
// linux/if_packet.h: struct tpacket_block_desc with struct tpacket_hdr_v1, and
// struct tpacket3_hdr.
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
	packetHeader  = 48
)

// ring is an AF_PACKET socket with a TPACKET_V3 ring: the kernel fills blocks
// in order and hands each over when it is full or BlockTimeout old; the reader
// takes them in the same order and gives them back. One goroutine uses it.
type ring struct {
	fd     int
	memory []byte
	blocks int
	next   int    // the block to be read next
	taken  uint64 // blocks read so far

	received, dropped uint64
}

// openRing opens the socket inside the tap's namespace and binds it when the
// ring stands, so that no packet takes another way.
func openRing(tap Tap, size int, timeout time.Duration) (*ring, error) {
	r := &ring{fd: -1, blocks: (size + blockBytes - 1) / blockBytes}
	err := tap.Namespace.Do(func() error {
		link, err := net.InterfaceByName(tap.Interface)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", tap.Interface, err)
		}
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		return r.bind(link.Index, timeout)
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *ring) bind(index int, timeout time.Duration) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("choose TPACKET_V3: %w", err)
	}
	// Asked by any socket, this makes the kernel stamp packets when they come
	// in, so that the drop log has the time of arrival too.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for timestamps: %w", err)
	}
	request := unix.TpacketReq3{
		Block_size:     blockBytes,
		Block_nr:       uint32(r.blocks),
		Frame_size:     frameBytes,
		Frame_nr:       uint32(r.blocks * (blockBytes / frameBytes)),
		Retire_blk_tov: uint32(max(1, timeout.Milliseconds())),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make packet ring of %d KiB: %w", r.blocks*blockBytes>>10, err)
	}
	memory, err := unix.Mmap(r.fd, 0, r.blocks*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map packet ring: %w", err)
	}
	r.memory = memory
	// ETH_P_ALL, since packets that leave are handed only to those who ask
	// for every protocol.
	all := uint16(unix.ETH_P_ALL)
	address := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index}
	if err := unix.Bind(r.fd, address); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// close gives socket and ring back.
func (r *ring) close() error {
	var errs []error
	if r.memory != nil {
		errs = append(errs, unix.Munmap(r.memory))
		r.memory = nil
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
		r.fd = -1
	}
	return errors.Join(errs...)
}

// word is a 32-bit field that the kernel shares.
func (r *ring) word(offset int) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }

// drain reads all blocks that the kernel has handed over. The data that f gets
// is valid only during the call.
func (r *ring) drain(f func(at time.Time, length int, data []byte)) {
	for range r.blocks {
		base := r.next * blockBytes
		status := r.word(base + blockStatus)
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return
		}
		count := *r.word(base + blockPackets)
		at := base + int(*r.word(base + blockFirst))
		end := base + blockBytes
		for ; count > 0 && at+packetHeader <= end; count-- {
			snap := int(*r.word(at + packetSnap))
			data := at + int(*(*uint16)(unsafe.Pointer(&r.memory[at+packetMAC])))
			if data+snap > end {
				break
			}
			when := time.Unix(int64(*r.word(at + packetSeconds)), int64(*r.word(at + packetNanos)))
			f(when, int(*r.word(at + packetLength)), r.memory[data:data+snap])
			at += int(*r.word(at + packetNext))
		}
		// The count must not be taken for the next lap's before the kernel
		// opens the block again: see waiting.
		atomic.StoreUint32(r.word(base+blockPackets), 0)
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % r.blocks
		r.taken++
	}
}

// waiting says, right after drain, whether the kernel holds packets in a block
// that it has not handed over yet. It counts a packet in its block before it
// copies it, and the counter lies in the shared memory.
func (r *ring) waiting() bool {
	base := r.next * blockBytes
	return atomic.LoadUint32(r.word(base+blockStatus))&unix.TP_STATUS_USER != 0 ||
		atomic.LoadUint32(r.word(base+blockPackets)) > 0
}

// count adds the kernel's statistics, which start again at each reading, to
// received and dropped.
func (r *ring) count() error {
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("read packet statistics: %w", err)
	}
	r.received += uint64(stats.Packets) // drops included
	r.dropped += uint64(stats.Drops)
	return nil
}
