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

// queue is the receive queue of a socket: whatever comes into it is reported.
type queue struct {
	raw    syscall.RawConn
	report func(data []byte, from netip.AddrPort)
	done   chan struct{}

	mu  sync.Mutex // held while the queue is read
	buf []byte
}

// begin reads what arrives until the socket is closed, which closes done.
func (q *queue) begin(raw syscall.RawConn, size int, report func([]byte, netip.AddrPort)) {
	q.raw, q.report, q.buf, q.done = raw, report, make([]byte, size), make(chan struct{})
	go func() {
		defer close(q.done)
		// The function is called whenever there may be something to take, and says
		// never that it has enough.
		q.raw.Read(func(fd uintptr) bool {
			q.take(int(fd))
			return false
		})
	}()
}

// take reports all that is in the queue. Whoever returns from it knows that
// nothing which had arrived before is still unreported.
func (q *queue) take(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		n, from, err := unix.Recvfrom(fd, q.buf, unix.MSG_DONTWAIT)
		source, v4 := from.(*unix.SockaddrInet4)
		switch {
		case err == nil && v4:
			q.report(q.buf[:n], netip.AddrPortFrom(netip.AddrFrom4(source.Addr), uint16(source.Port)))
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBADF):
			return
		}
		// Any other error is that of an ICMP message, which refusals reads.
	}
}

// drain reports all that has arrived.
func (q *queue) drain() error {
	return q.raw.Control(func(fd uintptr) { q.take(int(fd)) })
}

// socket is a UDP socket of the probe. Whatever arrives at it is reported to
// the Watch.
type socket struct {
	queue
	watch *Watch
	conn  *net.UDPConn
	local netip.AddrPort
}

// udp opens a socket. Port 0 is one of the probe's own.
func (w *Watch) udp(at Host, port uint16) (*socket, error) {
	if port == 0 {
		port = w.ports(1)
	}
	local := netip.AddrPortFrom(at.Addr, port)
	s := &socket{watch: w, local: local}
	var raw syscall.RawConn
	err := at.Space.Do(func() (err error) {
		if s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local)); err != nil {
			return err
		}
		if raw, err = s.conn.SyscallConn(); err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) {
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
	s.begin(raw, 2*payloadSize, func(data []byte, from netip.AddrPort) {
		if p := w.find(data); p != nil {
			p.arrive(s, from)
		}
	})
	return s, nil
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
			n, controls, _, _, err := unix.Recvmsg(int(fd), payload, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if received = err; err != nil {
				return
			}
			more = true
			if p := s.watch.find(payload[:n]); p != nil {
				p.refuse(queuedWord(control[:controls]))
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

// queuedWord names the ICMP error that an error queue's control message is
// about: struct sock_extended_err of linux/errqueue.h.
func queuedWord(control []byte) string {
	const origin, kind, code, icmp = 4, 5, 6, 2 // offsets, and SO_EE_ORIGIN_ICMP
	messages, err := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if err == nil && m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR && len(m.Data) > code && m.Data[origin] == icmp {
			return icmpWord(m.Data[kind], m.Data[code])
		}
	}
	return "local" // the sender's own kernel
}
