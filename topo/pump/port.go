package pump

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// A port's ring for frames that come in: slots of one size, each handed over by
// itself, so that nothing waits for others (TPACKET_V2; version 3 hands over
// blocks, after a millisecond at the soonest). A ring counts neither against a
// socket's buffer, which an unprivileged user can't enlarge, nor needs a system
// call for a frame.
const (
	slotBytes  = 2048 // header and a frame of 1514 bytes
	slots      = 1024 // 20 ms of 50,000 frames/s
	blockBytes = 64 << 10
)

// Offsets in a slot, from linux/if_packet.h: struct tpacket2_hdr and, behind
// it, aligned to 16 bytes, struct sockaddr_ll with its packet type.
const (
	slotStatus      = 0
	slotLength      = 4
	slotSnap        = 8
	slotMAC         = 12
	slotSeconds     = 16
	slotNanoseconds = 20
	slotPacketType  = 32 + 10
)

// port is one end of a link in the pump's namespace: frames that come out of
// the interface, and frames put into it.
type port struct {
	name   string
	fd     int
	memory []byte
	next   int           // the slot to be read next
	empty  time.Duration // when nothing was left to be read, at last
}

// openPort opens the interface of a namespace.
func openPort(space *ns.Handle, name string) (*port, error) {
	p := &port{name: name, fd: -1}
	err := space.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find interface: %w", err)
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		return p.bind(link.Index)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port %s: %w", name, err), p.close())
	}
	return p, nil
}

func (p *port) bind(index int) error {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("choose TPACKET_V2: %w", err)
	}
	// Frames go straight to the device: there is no queue in front of it.
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fmt.Errorf("bypass the queue: %w", err)
	}
	request := unix.TpacketReq{
		Block_size: blockBytes, Block_nr: slots * slotBytes / blockBytes,
		Frame_size: slotBytes, Frame_nr: slots,
	}
	if err := unix.SetsockoptTpacketReq(p.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make packet ring of %d KiB: %w", slots*slotBytes>>10, err)
	}
	memory, err := unix.Mmap(p.fd, 0, slots*slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map packet ring: %w", err)
	}
	p.memory = memory
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// close gives socket and ring back.
func (p *port) close() error {
	var errs []error
	if p.memory != nil {
		errs = append(errs, unix.Munmap(p.memory))
		p.memory = nil
	}
	if p.fd >= 0 {
		errs = append(errs, unix.Close(p.fd))
		p.fd = -1
	}
	return errors.Join(errs...)
}

func (p *port) word(offset int) *uint32 { return (*uint32)(unsafe.Pointer(&p.memory[offset])) }

// drain hands what has come in to f, at most one round of the ring, with the
// time at which each frame came. The clock counts from the pump's start. A frame
// is valid during the call, and nil where it was too long for a slot.
//
// The kernel stamps frames by the wall clock, which may be set meanwhile; so a
// stamp is believed only if it is neither ahead of now nor before the ring was
// last seen empty.
func (p *port) drain(clock func() time.Duration, f func(at time.Duration, frame []byte)) {
	now, wall := clock(), time.Now().UnixNano()
	for range slots {
		base := p.next * slotBytes
		status := p.word(base + slotStatus)
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			p.empty = now
			return
		}
		begin := base + int(*(*uint16)(unsafe.Pointer(&p.memory[base+slotMAC])))
		length, snap := *p.word(base + slotLength), *p.word(base + slotSnap)
		// What this socket itself sends is not handed back to it, but what others
		// send through the interface is.
		switch {
		case p.memory[base+slotPacketType] == unix.PACKET_OUTGOING:
		case length != snap || begin+int(snap) > base+slotBytes:
			f(now, nil)
		default:
			stamp := int64(*p.word(base + slotSeconds))*int64(time.Second) + int64(*p.word(base + slotNanoseconds))
			at := now + time.Duration(stamp-wall)
			if at > now { // it came while this was reading
				at = min(at, clock())
			}
			f(max(at, p.empty), p.memory[begin:begin+int(snap)])
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		p.next = (p.next + 1) % slots
	}
}

// unread is how many frames the kernel could not put into the ring since the
// last call.
func (p *port) unread() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("port %s: read packet statistics: %w", p.name, err)
	}
	return uint64(stats.Drops), nil
}

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	sent   uint32
	_      uint32
}

// sender sends many frames with one system call.
type sender struct {
	messages [batch]message
	vectors  [batch]unix.Iovec
}

// batch is how many frames are sent at once.
const batch = 64

// send puts frames, at most batch of them, into the port's interface. It returns
// how many the interface has taken before it refused one, and why.
func (s *sender) send(p *port, frames [][]byte) (int, error) {
	for i, frame := range frames {
		s.vectors[i].Base = &frame[0]
		s.vectors[i].SetLen(len(frame))
		s.messages[i].header.Iov = &s.vectors[i]
		s.messages[i].header.SetIovlen(1)
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&s.messages[0])), uintptr(len(frames)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
