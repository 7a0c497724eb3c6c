// Package packet takes packets off network interfaces through AF_PACKET sockets
// whose receive ring is shared with the kernel, packet(7): the kernel copies
// each packet into it, and no system call is needed to read one.
//
// There are two kinds of ring. Blocks are for whoever reads much and may read
// late: the kernel gathers packets and hands them over many at a time. Slots are
// for whoever must have each packet at once, and sends others.
//
// A ring counts neither against a socket's buffer, which an unprivileged user
// can't enlarge, nor against a limit on locked memory. It needs CAP_NET_RAW in
// the user namespace that owns the network namespace.
package packet

import (
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Packet is a packet that crossed the interface, from the link header on.
type Packet struct {
	// At is when the kernel had it, by the wall clock.
	At time.Time
	// Length is the packet's own, in bytes; Data is shorter where the ring has no
	// room for all of it.
	Length int
	// Outgoing says that it left through the interface. What this socket itself
	// sends is not among what it receives.
	Outgoing bool
	// Data is valid until the function that was given the packet returns.
	Data []byte
}

// ring is what both kinds have. One goroutine at a time uses it.
type ring struct {
	fd     int // -1 once closed
	memory []byte

	received, dropped uint64
}

// Of struct sockaddr_ll, which follows a packet's header in a ring: its size, and
// the offset of the packet's type.
const (
	addressBytes = 20
	addressType  = 10
)

// open makes a socket for an interface of a namespace, has its ring set up, maps
// the ring's bytes, and binds the socket only then, so that no packet takes
// another way.
func (r *ring) open(space *ns.Handle, name string, bytes int, setUp func() error) error {
	r.fd = -1
	err := space.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find interface: %w", err)
		}
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		if err := setUp(); err != nil {
			return err
		}
		if r.memory, err = unix.Mmap(r.fd, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return fmt.Errorf("map packet ring: %w", err)
		}
		// ETH_P_ALL, since packets that leave are handed only to those who ask
		// for every protocol.
		all := uint16(unix.ETH_P_ALL)
		if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Index}); err != nil {
			return fmt.Errorf("bind packet socket: %w", err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("open packet ring of %s: %w", name, err), r.Close())
	}
	return nil
}

// FD is the socket, to poll and to send through; -1 once closed.
func (r *ring) FD() int { return r.fd }

// Close gives socket and ring back. The kernel lets go of a packet socket only
// when every processor has passed by, some milliseconds later. A second Close
// does nothing.
func (r *ring) Close() error {
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

// Count says how many packets have come since the ring was opened, and how many
// of them the kernel dropped since the ring was full. Once closed it says what it
// said last.
func (r *ring) Count() (received, dropped uint64, err error) {
	if r.fd < 0 {
		return r.received, r.dropped, nil
	}
	// The kernel's numbers start again at each reading; its packets include its
	// drops.
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return r.received, r.dropped, fmt.Errorf("read packet statistics: %w", err)
	}
	r.received += uint64(stats.Packets)
	r.dropped += uint64(stats.Drops)
	return r.received, r.dropped, nil
}

// Fault takes and returns the error that the kernel has put onto the socket, if
// there is one: the interface went down, and maybe away. Until it is taken,
// whoever polls for the socket is woken at once each time.
func (r *ring) Fault() error {
	if r.fd < 0 {
		return nil
	}
	code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("read packet socket's error: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("packet socket: %w", unix.Errno(code))
	}
	return nil
}

// word is a 32-bit field that the kernel shares.
func (r *ring) word(offset int) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }

// half is a 16-bit field.
func (r *ring) half(offset int) int { return int(*(*uint16)(unsafe.Pointer(&r.memory[offset]))) }
