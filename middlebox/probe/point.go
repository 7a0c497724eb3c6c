package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// point is a TCP endpoint of the probe's own: the kernel neither answers for it
// nor sends anything again, which would keep alive what is to end.
type point struct {
	station *station
	local   netip.AddrPort
	deaf    int // a listening socket that gets nothing, so that the kernel refuses nothing

	next uint32 // number of the next byte that it sends
	ack  uint32 // that it awaits

	mu   sync.Mutex                 // guards what follows
	last map[netip.AddrPort]*packet // that it has sent to whom
}

// point opens one. Port 0 is one of the probe's own.
func (w *Watch) point(at Host, s *station, port uint16) (*point, error) {
	if port == 0 {
		port = w.ports(1)
	}
	e := &point{station: s, local: netip.AddrPortFrom(at.Addr, port), next: uint32(port) << 8, last: map[netip.AddrPort]*packet{}}
	err := at.Space.Do(func() (err error) {
		e.deaf, err = listenDeaf(e.local)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen without answering at %v: %w", e.local, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.points[e.local] = e
	return e, nil
}

// listenDeaf listens in the calling thread's namespace, and lets nothing of what
// comes get to the socket.
func listenDeaf(at netip.AddrPort) (int, error) {
	fd, err := tcpSocket(at)
	if err != nil {
		return -1, err
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}),
		unix.Listen(fd, 1))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (e *point) close() error {
	w := e.station.watch
	w.mu.Lock()
	delete(w.points, e.local)
	w.mu.Unlock()
	return unix.Close(e.deaf)
}

// at is the endpoint's address; that of none is the zero one.
func (e *point) at() netip.AddrPort {
	if e == nil {
		return netip.AddrPort{}
	}
	return e.local
}

// send sends a segment to be followed, the next one in order. One with an ACK
// alone repeats the bytes before it: the kernel has a timer of its own for a
// connection with bytes that nobody has acknowledged
// (nf_conntrack_tcp_timeout_unacknowledged, 5 min).
func (e *point) send(flags uint8, to netip.AddrPort) (*packet, error) {
	p := e.station.watch.packet()
	s := segment{from: e.local, to: to, seq: e.next, flags: flags, payload: p.payload()}
	if flags&flagACK != 0 {
		s.ack = e.ack
	}
	if flags == flagACK {
		s.seq -= s.length()
	}
	e.next = s.seq + s.length()
	e.mu.Lock()
	e.last[to] = p
	e.mu.Unlock()
	if err := e.station.tcp.send(s.append(nil), to.Addr()); err != nil {
		return nil, err
	}
	return p, nil
}

// reset takes a reset that has come from an address.
func (e *point) reset(from netip.AddrPort) {
	e.mu.Lock()
	p := e.last[from]
	e.mu.Unlock()
	if p != nil {
		p.refuse(reset)
	}
}
