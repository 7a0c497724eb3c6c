package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// maxPacket is the size of what a raw socket reads: an Ethernet frame's.
const maxPacket = 1500

// station is a host's raw sockets, by which it sends and gets what the kernel's
// own protocols would not: segments one by one, ICMP errors about anything.
type station struct {
	watch     *Watch
	addr      netip.Addr
	tcp, icmp *rawSocket
}

type rawSocket struct {
	queue
	conn *net.IPConn
}

// station opens the raw sockets of a host.
func (w *Watch) station(at Host) (*station, error) {
	s := &station{watch: w, addr: at.Addr}
	var err error
	if s.tcp, err = openRaw(at, "ip4:tcp", s.segment); err != nil {
		return nil, err
	}
	if s.icmp, err = openRaw(at, "ip4:icmp", s.message); err != nil {
		s.tcp.close()
		return nil, err
	}
	return s, nil
}

// openRaw opens one. What it reports are IPv4 packets.
func openRaw(at Host, network string, report func(packet []byte)) (*rawSocket, error) {
	r := &rawSocket{}
	var raw syscall.RawConn
	err := at.Space.Do(func() (err error) {
		if r.conn, err = net.ListenIP(network, &net.IPAddr{IP: at.Addr.AsSlice()}); err != nil {
			return err
		}
		raw, err = r.conn.SyscallConn()
		return err
	})
	if err != nil {
		err = fmt.Errorf("open a raw socket, %s, at %v: %w", network, at.Addr, err)
		if r.conn != nil {
			err = errors.Join(err, r.conn.Close())
		}
		return nil, err
	}
	r.begin(raw, maxPacket, func(packet []byte, _ netip.AddrPort) { report(packet) })
	return r, nil
}

func (r *rawSocket) close() {
	r.conn.Close() // nothing is unsent in a raw socket
	<-r.done
}

// send sends the payload of an IPv4 packet.
func (r *rawSocket) send(payload []byte, to netip.Addr) error {
	if _, err := r.conn.WriteToIP(payload, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("send from %v to %v: %w", r.conn.LocalAddr(), to, err)
	}
	return nil
}

func (s *station) at() netip.AddrPort { return netip.AddrPortFrom(s.addr, 0) }

func (s *station) drain() error {
	if err := errors.Join(s.tcp.drain(), s.icmp.drain()); err != nil {
		return fmt.Errorf("read what arrived at %v: %w", s.addr, err)
	}
	return nil
}

func (s *station) close() {
	s.tcp.close()
	s.icmp.close()
}

// segment takes what has come by TCP. A reset is about what its receiver has
// sent last to where the reset comes from.
func (s *station) segment(packet []byte) {
	g, ok := parseSegment(packet)
	if !ok {
		return
	}
	s.watch.mu.Lock()
	e := s.watch.points[g.to]
	s.watch.mu.Unlock()
	if e == nil {
		return // it is a connection of the kernel's
	}
	if p := s.watch.find(g.payload); p != nil {
		p.arrive(e, g.from)
	} else if g.flags&flagRST != 0 {
		e.reset(g.from)
	}
}

// message takes what has come by ICMP: an error that the probe has sent, one for
// a packet that it has sent, or the answer to an echo request.
func (s *station) message(packet []byte) {
	if sender, payload, ok := parseEchoReply(packet); ok {
		if p := s.watch.find(payload); p != nil {
			p.arrive(s, netip.AddrPortFrom(sender, 0))
		}
		return
	}
	sender, e, ok := parseICMPError(packet)
	if !ok {
		return
	}
	switch p := s.watch.find(e.payload); {
	case p == nil:
	case p.isError:
		p.quoted(s, sender, e)
	default:
		p.refuse(icmpWord(e.kind, e.code))
	}
}

// complain sends an ICMP error about a packet, to be followed.
func (s *station) complain(e icmpError, to netip.Addr) (*packet, error) {
	p := s.watch.packet()
	p.isError = true
	e.payload = p.payload()
	return p, s.icmp.send(e.append(nil), to)
}

// echo sends an echo request, to be followed until its answer arrives.
func (s *station) echo(to netip.Addr) (*packet, error) {
	p := s.watch.packet()
	return p, s.icmp.send(appendEcho(nil, p.payload()), to)
}
