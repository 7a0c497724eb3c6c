package packet

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

const (
	// slotBytes holds a packet's header and a frame of 1514 bytes.
	slotBytes = 2048
	// slotsBytes is what the kernel takes memory in for slots.
	slotsBytes = 64 << 10
)

// Offsets in a slot, from linux/if_packet.h: struct tpacket2_hdr and, behind
// it, aligned to 16 bytes, struct sockaddr_ll.
const (
	slotStatus      = 0
	slotLength      = 4
	slotSnap        = 8
	slotMAC         = 12
	slotSeconds     = 16
	slotNanoseconds = 20
	slotType        = 32 + addressType
)

// Slots is a TPACKET_V2 ring: slots of one size, each handed over by itself, so
// that nothing waits for others (version 3 hands over blocks, after a millisecond
// at the soonest). The socket is readable while there is a packet. What is sent
// through it goes straight to the device, without the queue in front of that.
// One goroutine at a time uses it.
type Slots struct {
	ring
	slots int
	next  int // the slot to be read next
}

// OpenSlots opens a ring of at least some slots on an interface of a namespace.
func OpenSlots(space *ns.Handle, name string, slots int) (*Slots, error) {
	const each = slotsBytes / slotBytes
	r := &Slots{slots: max(1, (slots+each-1)/each) * each}
	if err := r.open(space, name, r.slots*slotBytes, r.setUp); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Slots) setUp() error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("choose TPACKET_V2: %w", err)
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fmt.Errorf("bypass the queue: %w", err)
	}
	request := unix.TpacketReq{
		Block_size: slotsBytes, Block_nr: uint32(r.slots * slotBytes / slotsBytes),
		Frame_size: slotBytes, Frame_nr: uint32(r.slots),
	}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make packet ring of %d KiB: %w", r.slots*slotBytes>>10, err)
	}
	return nil
}

// Drain hands the packets that have come to f, at most one round of the ring. It
// says whether none was left.
func (r *Slots) Drain(f func(Packet)) (empty bool) {
	for range r.slots {
		base := r.next * slotBytes
		status := r.word(base + slotStatus)
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return true
		}
		begin := base + r.half(base+slotMAC)
		end := min(begin+int(*r.word(base + slotSnap)), base+slotBytes)
		f(Packet{
			At:       time.Unix(int64(*r.word(base + slotSeconds)), int64(*r.word(base + slotNanoseconds))),
			Length:   int(*r.word(base + slotLength)),
			Outgoing: r.memory[base+slotType] == unix.PACKET_OUTGOING,
			Data:     r.memory[begin:end],
		})
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % r.slots
	}
	return false
}
