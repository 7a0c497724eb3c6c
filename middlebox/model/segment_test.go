package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// raw is a host's way to send and see TCP segments of its own making. Its
// kernel answers none of them: every port has a listener that is deaf.
type raw struct {
	fd   int
	addr netip.Addr
}

// raw opens it, with all of the ports.
func (r *rig) raw(host string, ports []uint16) raw {
	r.Helper()
	out := raw{addr: r.addr(host)}
	r.in(host, func() (err error) {
		out.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		r.Cleanup(func() { unix.Close(out.fd) })
		for _, port := range ports {
			if err := r.deaf(netip.AddrPortFrom(out.addr, port)); err != nil {
				return err
			}
		}
		return nil
	})
	return out
}

// deaf listens and takes nothing.
func (r *rig) deaf(at netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.Cleanup(func() { unix.Close(fd) })
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}),
		unix.Listen(fd, 1),
	)
}

// Bits of the header that the box doesn't look at, and its length in words.
const (
	psh         = 1 << 3
	headerWords = 5
)

// header makes a segment (RFC 9293 §3.1). Every end numbers its segments as if
// its SYN had been number 0 and nothing after it had been acknowledged, and has
// the widest window, so that all fit into every window. The urgent pointer,
// which means nothing without its flag, holds the tag.
func header(p Packet, tag uint16) []byte {
	h := make([]byte, headerWords*4)
	binary.BigEndian.PutUint16(h, p.From.Port())
	binary.BigEndian.PutUint16(h[2:], p.To.Port())
	if p.Flags&SYN == 0 {
		binary.BigEndian.PutUint32(h[4:], 1)
	}
	if p.Flags&ACK != 0 {
		binary.BigEndian.PutUint32(h[8:], 1)
	}
	h[12], h[13] = headerWords<<4, byte(p.Flags)
	binary.BigEndian.PutUint16(h[14:], 1<<16-1)
	binary.BigEndian.PutUint16(h[18:], tag)
	if p.Flags&psh != 0 {
		h = append(h, "data"...)
	}
	binary.BigEndian.PutUint16(h[16:], checksum(p, h))
	return h
}

// checksum is TCP's, of a segment whose own is 0.
func checksum(p Packet, segment []byte) uint16 {
	from, to := p.From.Addr().As4(), p.To.Addr().As4()
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, part := range [][]byte{from[:], to[:], segment} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// sendSegment sends a segment and says what became of it.
func (r *rig) sendSegment(p Packet, sequence uint16) (seen, error) {
	for _, h := range r.raws {
		if h.addr != p.From.Addr() {
			continue
		}
		if err := unix.Sendto(h.fd, header(p, sequence), 0, &unix.SockaddrInet4{Addr: p.To.Addr().As4()}); err != nil {
			return seen{}, fmt.Errorf("send %v: %w", p, err)
		}
	}
	if err := r.flush(p.From, p.To, sequence); err != nil {
		return seen{}, err
	}
	var out seen
	for _, h := range r.raws {
		for {
			got, tag, err := h.receive()
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return seen{}, err
			}
			if tag != sequence { // an answer of the box itself
				continue
			}
			if out.arrived || got.Flags != p.Flags {
				return seen{}, fmt.Errorf("%v got %v, %#x, expected %#x once", h.addr, got, got.Flags, p.Flags)
			}
			out = seen{arrived: true, at: got.To, from: got.From}
		}
	}
	for {
		_, tag, err := r.own[unix.IPPROTO_TCP].receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return seen{}, err
		}
		out.local = out.local || tag == sequence
	}
	var err error
	if !out.arrived && !out.local {
		out.dropped, err = r.whoDropped()
	}
	return out, err
}

// receive takes one segment that has come, EAGAIN if none has.
func (h raw) receive() (p Packet, tag uint16, err error) {
	var buf [256]byte
	n, _, err := unix.Recvfrom(h.fd, buf[:], unix.MSG_DONTWAIT)
	if err != nil {
		return p, 0, err
	}
	start := int(buf[0]&15) * 4
	if n < start+headerWords*4 {
		return p, 0, fmt.Errorf("%v got %d bytes, not a segment", h.addr, n)
	}
	t := buf[start:n]
	p.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(buf[12:16])), binary.BigEndian.Uint16(t))
	p.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(buf[16:20])), binary.BigEndian.Uint16(t[2:]))
	p.Flags = Flags(t[13])
	return p, binary.BigEndian.Uint16(t[18:]), nil
}
