package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gauntlet/nodes/media"
)

// queueSize bounds the media in bytes that waits for a slow TCP leg: about 3 s
// of the 2004 load. What does not fit is dropped, as a router would.
const queueSize = 16 << 10

// leg is the last hop of media to an end: datagrams to an address, or a TCP
// connection with a queue before it.
type leg struct {
	to   netip.AddrPort // of a UDP leg
	conn net.Conn       // of a TCP leg

	mu     sync.Mutex
	queue  []byte        // frames not yet written
	filled chan struct{} // capacity 1: the queue is not empty
	closed bool
}

// deliver sends a packet on its last hop. It never blocks and allocates
// nothing.
func (l *leg) deliver(packet []byte, out PacketWriter) {
	if l.conn == nil {
		out.WriteTo(packet, l.to)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue)+media.FrameOverhead+len(packet) > queueSize {
		return
	}
	l.queue = media.AppendFrame(l.queue, packet)
	select {
	case l.filled <- struct{}{}:
	default:
	}
}

// close ends a TCP leg.
func (l *leg) close() {
	if l.conn == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.filled)
		l.conn.Close()
	}
}

// write moves the queue to the connection until the leg closes.
func (l *leg) write(timeout time.Duration) {
	spare := make([]byte, 0, queueSize)
	for range l.filled {
		l.mu.Lock()
		full := l.queue
		l.queue = spare[:0]
		l.mu.Unlock()
		if len(full) > 0 {
			l.conn.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := l.conn.Write(full); err != nil {
				l.close()
			}
		}
		spare = full
	}
}

// forward sends an end's packet to its peer, if it keeps to its rate and the
// peer has a leg.
func (s *Server) forward(from *end, packet []byte) {
	if len(packet) > media.MaxPacket || !from.media.AllowN(time.Now(), len(packet)) {
		return
	}
	select {
	case <-from.paired:
	default:
		return
	}
	if leg := from.peer.leg.Load(); leg != nil {
		leg.deliver(packet, s.out)
	}
}

// HandleDatagram takes a datagram that reached the supernode's UDP socket and
// is neither STUN nor sealed: a token, which makes its source the end's media
// leg, or media from such a source. Anything else is ignored without an
// answer. The packet is not kept.
func (s *Server) HandleDatagram(from netip.AddrPort, packet []byte) {
	if token, ok := ParseToken(packet); ok {
		s.openUDP(from, token)
		return
	}
	s.mu.RLock()
	e := s.sources[from]
	s.mu.RUnlock()
	if e != nil {
		s.forward(e, packet)
	}
}

// openUDP makes from the media leg of the end that the token was given to. An
// address that is the leg of another session stays so, since nothing but its
// source tells whose a media datagram is.
func (s *Server) openUDP(from netip.AddrPort, token Token) {
	s.mu.Lock()
	if holder := s.sources[from]; holder != nil && s.tokens[token].end != holder {
		s.mu.Unlock()
		return
	}
	e, err := s.redeem(token, UDP)
	if err != nil {
		s.mu.Unlock()
		return
	}
	if e.source.IsValid() {
		delete(s.sources, e.source)
	}
	e.source = from
	s.sources[from] = e
	s.mu.Unlock()
	e.setLeg(&leg{to: from})
	e.report(UDP)
}

// ServeMedia serves a TCP connection that begins with a token and then carries
// an end's media, until either closes it. It closes the connection.
func (s *Server) ServeMedia(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetReadDeadline(time.Now().Add(s.config.JoinTimeout))
	var wire [TokenSize]byte
	if _, err := io.ReadFull(conn, wire[:]); err != nil {
		return fmt.Errorf("await media token: %w", err)
	}
	token, ok := ParseToken(wire[:])
	if !ok {
		return errors.New("media connection begins without a token")
	}
	s.mu.Lock()
	e, err := s.redeem(token, TCP)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("open media connection: %w", err)
	}
	l := &leg{conn: conn, queue: make([]byte, 0, queueSize), filled: make(chan struct{}, 1)}
	e.setLeg(l)
	select {
	case <-e.stopped: // the session ended meanwhile; nobody else would close the leg
		e.setLeg(nil)
	default:
	}
	e.report(TCP)
	var tasks sync.WaitGroup
	tasks.Go(func() { l.write(s.config.WriteTimeout) })
	defer tasks.Wait()
	defer l.close()
	reader := media.NewFrameReader(conn)
	for {
		conn.SetReadDeadline(time.Now().Add(s.config.IdleTimeout))
		packet, err := reader.Read()
		if err != nil {
			return fmt.Errorf("read media: %w", err)
		}
		s.forward(e, packet)
	}
}
