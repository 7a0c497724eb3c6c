package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Host is one address from which is measured, and the namespace that has it.
type Host struct {
	Space *ns.Handle
	Addr  netip.Addr
}

// socket is a UDP socket of the probe. Whatever arrives at it is reported to
// the Watch.
type socket struct {
	watch *Watch
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	done  chan struct{}

	mu  sync.Mutex // held while the queue is read
	buf [2 * payloadSize]byte
}

// udp opens a socket. Port 0 is one of the probe's own.
func (w *Watch) udp(at Host, port uint16) (*socket, error) {
	if port == 0 {
		port = w.ports(1)
	}
	local := netip.AddrPortFrom(at.Addr, port)
	s := &socket{watch: w, local: local, done: make(chan struct{})}
	err := at.Space.Do(func() (err error) {
		if s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local)); err != nil {
			return err
		}
		if s.raw, err = s.conn.SyscallConn(); err != nil {
			return err
		}
		var set error
		err = s.raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
		})
		return errors.Join(err, set)
	})
	if err != nil {
		err = fmt.Errorf("open a socket at %v: %w", local, err)
		if s.conn != nil {
			err = errors.Join(err, s.conn.Close())
		}
		return nil, err
	}
	go s.read()
	return s, nil
}

// read takes what arrives until the socket is closed.
func (s *socket) read() {
	defer close(s.done)
	// The function is called whenever there may be something to take, and says
	// never that it has enough.
	s.raw.Read(func(fd uintptr) bool {
		s.take(int(fd))
		return false
	})
}

// take reports all that is in the socket's queue. Whoever returns from it knows
// that nothing which had arrived before is still unreported.
func (s *socket) take(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n, from, err := unix.Recvfrom(fd, s.buf[:], unix.MSG_DONTWAIT)
		source, v4 := from.(*unix.SockaddrInet4)
		switch {
		case err == nil && v4:
			if p := s.watch.find(s.buf[:n]); p != nil {
				p.arrive(s, netip.AddrPortFrom(netip.AddrFrom4(source.Addr), uint16(source.Port)))
			}
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBADF):
			return
		}
		// Any other error is that of an ICMP message, which refusals reads.
	}
}

// drain reports all that has arrived.
func (s *socket) drain() error {
	if err := s.raw.Control(func(fd uintptr) { s.take(int(fd)) }); err != nil {
		return fmt.Errorf("read what arrived at %v: %w", s.local, err)
	}
	return nil
}

func (s *socket) close() {
	s.conn.Close() // nothing is unsent in a UDP socket
	<-s.done
}

// send sends a packet to be followed.
func (s *socket) send(to netip.AddrPort) (*packet, error) {
	p := s.watch.packet()
	for try := 0; ; try++ {
		_, err := s.conn.WriteToUDPAddrPort(p.payload(), to)
		if err == nil {
			return p, nil
		}
		// A pending ICMP error of an earlier packet is given to the next call,
		// which then has sent nothing (ip(7), IP_RECVERR).
		if try == 3 || !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) {
			return nil, fmt.Errorf("send from %v to %v: %w", s.local, to, err)
		}
	}
}

// refusals takes the ICMP errors that have come for packets of this socket.
// The kernel gives back what it quotes of the packet, and its destination.
func (s *socket) refusals() error {
	payload, control := make([]byte, 256), make([]byte, 256)
	for more := true; more; {
		more = false
		var received error
		err := s.raw.Control(func(fd uintptr) {
			n, _, _, _, err := unix.Recvmsg(int(fd), payload, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if received = err; err != nil {
				return
			}
			more = true
			if p := s.watch.find(payload[:n]); p != nil {
				p.refuse()
			}
		})
		if err != nil {
			return fmt.Errorf("read ICMP errors of %v: %w", s.local, err)
		}
		if received != nil && !errors.Is(received, unix.EAGAIN) {
			return fmt.Errorf("read ICMP errors of %v: %w", s.local, received)
		}
	}
	return nil
}
