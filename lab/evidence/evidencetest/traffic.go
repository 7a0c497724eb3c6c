package evidencetest

import (
	"encoding/binary"
	"net/netip"

	"gauntlet/lab/evidence"
)

// Socket is a port of a host.
type Socket struct {
	r         *Recording
	Host      string
	Local     netip.AddrPort
	transport string
}

// Socket opens a port on the host's first address.
func (r *Recording) Socket(transport, host string, port uint16) *Socket {
	r.t.Helper()
	h := r.World.Host(host)
	if h == nil {
		r.t.Fatalf("no host %q", host)
	}
	return &Socket{r: r, Host: host, Local: netip.AddrPortFrom(h.Addresses[0], port), transport: transport}
}

// Send sends a datagram. It returns the host that it reached and the sender's
// address as that host sees it; host is "" if it reached none.
func (s *Socket) Send(to netip.AddrPort, payload int) (host string, from netip.AddrPort) {
	s.r.t.Helper()
	host, as := s.r.transit(s.Host, evidence.Packet{
		Transport: s.transport, Tuple: evidence.Tuple{Src: s.Local, Dst: to}, Payload: payload,
	})
	return host, as.Src
}

// Segment sends one TCP segment, for what Conn does not do.
func (s *Socket) Segment(to netip.AddrPort, flags uint8, seq uint32, payload int) (host string, from netip.AddrPort) {
	s.r.t.Helper()
	host, as := s.r.transit(s.Host, evidence.Packet{
		Transport: evidence.TCP, Tuple: evidence.Tuple{Src: s.Local, Dst: to},
		Flags: flags, Seq: seq, Payload: payload,
	})
	return host, as.Src
}

// Conn is a TCP connection.
type Conn struct {
	// Open says that the three-way handshake was completed.
	Open           bool
	client, server side
	r              *Recording
}

type side struct {
	host      string
	local, to netip.AddrPort
	seq       uint32
}

// MaxSegment is the most bytes of payload in one packet of a Conn.
const MaxSegment = 1400

// Connect opens a TCP connection from a host's port.
func (r *Recording) Connect(from string, port uint16, to netip.AddrPort) *Conn {
	r.t.Helper()
	s := r.Socket(evidence.TCP, from, port)
	c := &Conn{r: r, client: side{host: from, local: s.Local, to: to, seq: uint32(r.Now.UnixNano())}}
	host, as := c.segment(&c.client, evidence.SYN, 0)
	if host == "" {
		return c
	}
	c.server = side{host: host, local: as.Dst, to: as.Src, seq: c.client.seq + 0x80000000}
	if host, _ := c.segment(&c.server, evidence.SYN|evidence.ACK, 0); host == "" {
		return c
	}
	c.segment(&c.client, evidence.ACK, 0)
	c.Open = true
	return c
}

func (c *Conn) segment(s *side, flags uint8, payload int) (host string, as evidence.Tuple) {
	c.r.t.Helper()
	host, as = c.r.transit(s.host, evidence.Packet{
		Transport: evidence.TCP, Tuple: evidence.Tuple{Src: s.local, Dst: s.to},
		Flags: flags, Seq: s.seq, Payload: payload,
	})
	s.seq += uint32(payload)
	if flags&(evidence.SYN|evidence.FIN) != 0 {
		s.seq++
	}
	return host, as
}

func (c *Conn) of(host string) *side {
	c.r.t.Helper()
	switch host {
	case c.client.host:
		return &c.client
	case c.server.host:
		return &c.server
	}
	c.r.t.Fatalf("%s is no end of the connection", host)
	return nil
}

// Send sends bytes from one of the two hosts, in segments.
func (c *Conn) Send(from string, bytes int) {
	c.r.t.Helper()
	for ; bytes > 0; bytes -= MaxSegment {
		c.segment(c.of(from), evidence.ACK|evidence.PSH, min(bytes, MaxSegment))
	}
}

// Again sends the last bytes of a host once more.
func (c *Conn) Again(from string, bytes int) {
	c.r.t.Helper()
	s := c.of(from)
	s.seq -= uint32(bytes)
	c.Send(from, bytes)
}

// Close sends a FIN from one of the two hosts, and its answer.
func (c *Conn) Close(from string) {
	c.r.t.Helper()
	first, second := c.of(from), &c.server
	if first == &c.server {
		second = &c.client
	}
	c.segment(first, evidence.FIN|evidence.ACK, 0)
	c.segment(second, evidence.FIN|evidence.ACK, 0)
}

const etherHeader = 14

// Frame writes a packet as an Ethernet frame; checksums are left zero, which
// the reader does not look at.
func Frame(p evidence.Packet) []byte {
	header := 8
	protocol := byte(17)
	if p.Transport == evidence.TCP {
		header, protocol = 20, 6
	}
	f := make([]byte, etherHeader+20+header+p.Payload)
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[etherHeader:]
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], p.ID)
	if p.More {
		ip[6] = 0x20
	}
	src, dst := p.Tuple.Src.Addr().As4(), p.Tuple.Dst.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	t := ip[20:]
	binary.BigEndian.PutUint16(t, p.Tuple.Src.Port())
	binary.BigEndian.PutUint16(t[2:], p.Tuple.Dst.Port())
	if p.Transport == evidence.TCP {
		binary.BigEndian.PutUint32(t[4:], p.Seq)
		t[12], t[13] = 5<<4, p.Flags
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(header+p.Payload))
	}
	return f
}
