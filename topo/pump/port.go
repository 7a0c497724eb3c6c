package pump

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
	"gauntlet/topo/packet"
)

// slots is how many frames that came in may wait to be read: 20 ms of 50,000
// frames/s.
const slots = 1024

// port is one end of a link in the pump's namespace: frames that come out of
// the interface, and frames put into it.
type port struct {
	*packet.Slots
	name  string
	empty time.Duration // when nothing was left to be read, at last
}

// openPort opens the interface of a namespace.
func openPort(space *ns.Handle, name string) (*port, error) {
	ring, err := packet.OpenSlots(space, name, slots)
	if err != nil {
		return nil, err
	}
	return &port{Slots: ring, name: name}, nil
}

// drain hands what has come in to f, at most one round of the ring, with the
// time at which each frame came. The clock counts from the pump's start. A frame
// is valid during the call, and nil where it was too long for a slot.
//
// The kernel stamps frames by the wall clock, which may be set meanwhile; so a
// stamp is believed only if it is neither ahead of now nor before the ring was
// last seen empty.
func (p *port) drain(clock func() time.Duration, f func(at time.Duration, frame []byte)) {
	now, wall := clock(), time.Now().UnixNano()
	empty := p.Drain(func(came packet.Packet) {
		// What others send through the interface is handed to this socket too.
		switch {
		case came.Outgoing:
		case len(came.Data) < came.Length:
			f(now, nil)
		default:
			at := now + time.Duration(came.At.UnixNano()-wall)
			if at > now { // it came while this was reading
				at = min(at, clock())
			}
			f(max(at, p.empty), came.Data)
		}
	})
	if empty {
		p.empty = now
	}
}

// unread is how many frames the kernel could not put into the ring.
func (p *port) unread() (uint64, error) {
	_, dropped, err := p.Count()
	if err != nil {
		return dropped, fmt.Errorf("port %s: %w", p.name, err)
	}
	return dropped, nil
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
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.FD()), uintptr(unsafe.Pointer(&s.messages[0])), uintptr(len(frames)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
