package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// Of ICMP (RFC 792): the message that is sent, and the length of what it has of
// the packet that it is about, an IPv4 header and 8 bytes.
const (
	unreachable     = 3
	portUnreachable = 3
	quoteLength     = 28
)

// ears opens a raw ICMP socket at each host.
func (r *rig) ears() {
	r.Helper()
	for _, host := range []string{"alice", "anna", "s1", "s2"} {
		r.in(host, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
			if err == nil {
				r.Cleanup(func() { unix.Close(fd) })
				r.icmp = append(r.icmp, raw{fd, r.addr(host)})
			}
			return err
		})
	}
}

// complaint makes an error about a packet. The field that only other codes use
// (RFC 1191) holds the tag.
func complaint(about Packet, tag uint16) []byte {
	b := make([]byte, 8+quoteLength)
	b[0], b[1] = unreachable, portUnreachable
	binary.BigEndian.PutUint16(b[6:], tag)
	q := b[8:]
	q[0], q[8], q[9] = 0x45, 64, unix.IPPROTO_UDP
	if about.Protocol == middlebox.TCP {
		q[9] = unix.IPPROTO_TCP
	} else {
		binary.BigEndian.PutUint16(q[24:], 8)
	}
	binary.BigEndian.PutUint16(q[2:], quoteLength)
	copy(q[12:], about.From.Addr().AsSlice())
	copy(q[16:], about.To.Addr().AsSlice())
	binary.BigEndian.PutUint16(q[10:], internetSum(q[:20]))
	binary.BigEndian.PutUint16(q[20:], about.From.Port())
	binary.BigEndian.PutUint16(q[22:], about.To.Port())
	binary.BigEndian.PutUint16(b[2:], internetSum(b))
	return b
}

// internetSum is RFC 1071's checksum.
func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// complain sends an error about a packet and says what became of it: where it
// arrived, and the packet that it is about there.
func (r *rig) complain(from, to netip.Addr, about Packet, tag uint16) (out seen, quoted Packet, err error) {
	for _, h := range r.icmp {
		if h.addr == from {
			if err := unix.Sendto(h.fd, complaint(about, tag), 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
				return out, quoted, fmt.Errorf("complain to %v: %w", to, err)
			}
		}
	}
	if err := r.flush(netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), tag); err != nil {
		return out, quoted, err
	}
	for _, h := range r.icmp {
		for {
			var buf [256]byte
			n, _, err := unix.Recvfrom(h.fd, buf[:], unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return out, quoted, err
			}
			m := buf[int(buf[0]&15)*4 : n]
			if len(m) < 8+quoteLength || m[0] != unreachable || binary.BigEndian.Uint16(m[6:]) != tag {
				continue // a fence
			}
			q := m[8:]
			quoted = Packet{
				Protocol: about.Protocol,
				From:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(q[12:16])), binary.BigEndian.Uint16(q[20:])),
				To:       netip.AddrPortFrom(netip.AddrFrom4([4]byte(q[16:20])), binary.BigEndian.Uint16(q[22:])),
			}
			out = seen{arrived: true, at: netip.AddrPortFrom(h.addr, 0)}
		}
	}
	if !out.arrived {
		out.dropped, err = r.whoDropped()
	}
	return out, quoted, err
}

// complains sends one error through kernel and model.
func (c *comparison) complains(i int, s step) (difference error, failed error) {
	about, side := Packet{Protocol: middlebox.UDP}, Outside
	var from, to netip.Addr
	if s.tcp {
		about.Protocol = middlebox.TCP
	}
	if s.kind == errorOut {
		about.From, about.To, side = c.outside[s.far].local, c.inside[s.near].local, Inside
		from, to = about.To.Addr(), about.From.Addr()
	} else {
		about.From, about.To = c.inside[s.near].local, c.outside[s.far].local
		if c.declared.Translates() {
			about.From = netip.AddrPortFrom(c.config(c.declared).WAN[0], about.From.Port())
		}
		if known := c.known[about.Protocol]; len(known) > 0 {
			flow := known[max(0, len(known)-1-s.target)]
			about.From, about.To = flow.external, flow.peer
			if s.flags == 1 { // of a flow that there needn't be
				about.To = c.outside[s.far].local
			}
		}
		from, to = c.outside[s.far].local.Addr(), about.From.Addr() // whoever on the way
	}
	got, quoted, err := c.complain(from, to, about, uint16(i+1))
	if err != nil {
		return nil, fmt.Errorf("error %d about %v: %w", i, about, err)
	}
	c.count.errors++
	if got.arrived {
		c.count.conveyed++
	}
	want := c.box.HandleError(side, about, 0)
	switch {
	case got.arrived != (want.Dropped == ""), !got.arrived && got.dropped != want.Dropped:
		return fmt.Errorf("error %d from %v about %v: kernel %s; model %v", i, from, about, describe(got), want), nil
	case got.arrived && quoted != want.Packet:
		return fmt.Errorf("error %d from %v about %v: there, kernel says it is about %v; model %v", i, from, about, quoted, want.Packet), nil
	case got.arrived && side == Outside && got.at.Addr() != want.Packet.From.Addr():
		return fmt.Errorf("error %d from %v about %v: kernel brought it to %v; model %v", i, from, about, got.at.Addr(), want.Packet.From), nil
	}
	return nil, nil
}

// RFC 5508, REQ-3 to REQ-5: ICMP errors about packets of flows that live, and
// of others, both ways, by every mapping and filtering.
func TestKernelErrors(t *testing.T) {
	nat, wall := newRig(t, true, 1), newRig(t, false, 0)
	nat.ears()
	wall.ears()
	for _, b := range append(grid(), tcpGrid()...) {
		on := nat
		if !b.Translates() {
			on = wall
		}
		t.Run(fmt.Sprintf("%s TCP %s", name(b), b.FilteringOf(middlebox.TCP)), func(t *testing.T) {
			agree(t, on, b, complaining(on, b))
			if got := on.count; !t.Failed() && (got.conveyed < 10 || b.Translates() && got.errors-got.conveyed < 10) {
				t.Errorf("%v: too few to say anything", got)
			}
		})
	}
}

// complaining draws a sequence with errors among its packets.
func complaining(r *rig, b middlebox.Behaviour) *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) (list []step) {
		for _, s := range steps(r, b).Draw(t, "packets") {
			list = append(list, s)
			e := step{
				kind:  rapid.SampledFrom([]kind{errorIn, errorOut}).Draw(t, "error"),
				tcp:   s.tcp,
				flags: rapid.IntRange(0, 1).Draw(t, "other"), target: rapid.IntRange(0, 1).Draw(t, "target"),
				near: s.near, far: s.far,
			}
			list = append(list, e)
		}
		return list
	})
}
