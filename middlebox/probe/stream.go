package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stream is a TCP connection, or an attempt, whose segments from the side that
// connects are followed.
type stream struct {
	watch *Watch
	local netip.AddrPort
	fated chan struct{} // closed when a rule has dropped a segment

	mu      sync.Mutex // guards what follows
	dropped *Drop
}

// follow begins to follow what an address sends by TCP.
func (w *Watch) follow(local netip.AddrPort) *stream {
	s := &stream{watch: w, local: local, fated: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams[local] = s
	return s
}

func (s *stream) forget() {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	delete(s.watch.streams, s.local)
}

func (s *stream) drop(d Drop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped == nil {
		s.dropped = &d
		close(s.fated)
	}
}

func (s *stream) known() *Drop {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// attempt is what became of an attempt to connect.
type attempt struct {
	connected bool
	dropped   *Drop // by a rule that logs
	refused   bool  // with a reset, or an ICMP error
}

func (a attempt) String() string {
	switch {
	case a.connected:
		return "connected"
	case a.dropped != nil && a.refused:
		return fmt.Sprintf("refused by rule %s of %s", a.dropped.Rule, a.dropped.Box)
	case a.dropped != nil:
		return fmt.Sprintf("dropped by rule %s of %s", a.dropped.Rule, a.dropped.Box)
	case a.refused:
		return "answered with a reset"
	}
	return "vanished without a trace"
}

// listener accepts connections and holds them until it is closed.
type listener struct {
	*net.TCPListener
	local netip.AddrPort
	seen  chan netip.AddrPort // where the connections come from, in order
}

// listen opens a listener. Port 0 is one of the probe's own.
func (w *Watch) listen(at Host, port uint16) (*listener, error) {
	if port == 0 {
		port = w.ports(1)
	}
	l := &listener{local: netip.AddrPortFrom(at.Addr, port), seen: make(chan netip.AddrPort, 64)}
	err := at.Space.Do(func() (err error) {
		l.TCPListener, err = open(l.local)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", l.local, err)
	}
	go func() {
		defer close(l.seen)
		var held []*net.TCPConn
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				break
			}
			held = append(held, c)
			l.seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
		}
		for _, c := range held {
			c.SetLinger(0) // a reset, so that neither end lingers
			c.Close()
		}
	}()
	return l, nil
}

// close ends the listener and all connections it has accepted.
func (l *listener) close() {
	l.Close()
	for open := true; open; { // until the connections are closed
		_, open = <-l.seen
	}
}

// open makes a listening socket in the calling thread's namespace.
func open(at netip.AddrPort) (*net.TCPListener, error) {
	fd, err := tcpSocket(at)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "tcp")
	l, err := net.FileListener(file) // a copy of the descriptor
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// tcpSocket makes a socket with an address, which it may share with others:
// the tests of RFC 5382 connect from one internal endpoint to several
// destinations.
func tcpSocket(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), // close with a reset
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
