package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session is an end's half of a relay session.
type Session struct {
	conn     net.Conn
	writing  sync.Mutex
	deadline atomic.Pointer[time.Time] // of writes to the stream, nil: none

	asking sync.Mutex // one media leg is opened at a time
	tokens chan Token // the relay's answer to the ask under way
	opened chan Transport

	paired chan struct{}
	inner  net.Conn // receive writes what arrives on the stream here
	outer  net.Conn // and the stream's user reads it here

	ending sync.Once
	done   chan struct{}
	err    error // set before done is closed
	tasks  sync.WaitGroup
}

// Join joins the session id at the relay that conn leads to, a TLS connection
// over which both sides proved who they are; peer is who must join on the
// other side. The session owns conn from now on. Join does not wait for the
// peer: see Paired. The error is of writing to conn, which is then closed.
func Join(ctx context.Context, conn net.Conn, id ID, peer User) (*Session, error) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write(frame(frameJoin, id[:], peer[:])); err != nil {
		conn.Close()
		return nil, fmt.Errorf("join relay session: %w", err)
	}
	conn.SetWriteDeadline(time.Time{})
	s := &Session{
		conn:   conn,
		tokens: make(chan Token, 1),
		opened: make(chan Transport, 4),
		paired: make(chan struct{}),
		done:   make(chan struct{}),
	}
	s.inner, s.outer = net.Pipe()
	s.tasks.Go(s.receive)
	return s, nil
}

// Paired is closed once the other end has joined too.
func (s *Session) Paired() <-chan struct{} { return s.paired }

// WaitPaired waits until the other end has joined.
func (s *Session) WaitPaired(ctx context.Context) error {
	select {
	case <-s.paired:
		return nil
	case <-s.done:
		return fmt.Errorf("await the other end at the relay: %w", s.err)
	case <-ctx.Done():
		return fmt.Errorf("await the other end at the relay: %w", context.Cause(ctx))
	}
}

// Done is closed once the session has ended, by whichever side.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session ended; nil before.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Close ends the session and waits for what it started.
func (s *Session) Close() error {
	s.end(net.ErrClosed)
	s.tasks.Wait()
	return nil
}

// end tears the session down for a reason; the first reason counts.
func (s *Session) end(cause error) {
	s.ending.Do(func() {
		s.err = cause
		close(s.done)
		s.inner.Close()
		s.conn.Close()
	})
}

// receive takes frames off the connection until it fails.
func (s *Session) receive() {
	buffer := new(frameBuffer)
	for {
		kind, body, _, err := buffer.read(s.conn)
		if err != nil {
			s.end(fmt.Errorf("relay connection: %w", err))
			return
		}
		if err := s.handle(kind, body); err != nil {
			s.end(err)
			return
		}
	}
}

// handle does what one frame of the relay's says.
func (s *Session) handle(kind byte, body []byte) error {
	switch kind {
	case framePaired:
		select {
		case <-s.paired:
			return fmt.Errorf("%w: paired twice", errFrame)
		default:
			close(s.paired)
		}
	case frameStream:
		if _, err := s.inner.Write(body); err != nil {
			return fmt.Errorf("relay stream: %w", err)
		}
	case frameStandby:
	case frameToken:
		if len(body) != 1+len(Token{}) {
			return fmt.Errorf("%w: token of %d bytes", errFrame, len(body))
		}
		select {
		case s.tokens <- Token(body[1:]):
		default:
			return fmt.Errorf("%w: token not asked for", errFrame)
		}
	case frameOpened:
		transport, err := parseTransport(body)
		if err != nil {
			return err
		}
		select {
		case s.opened <- transport:
		default:
			return fmt.Errorf("%w: more legs than were asked for", errFrame)
		}
	case frameBye:
		return fmt.Errorf("the relay ended the session: %q", body)
	default:
		return fmt.Errorf("%w: type %d", errFrame, kind)
	}
	return nil
}

// controlTimeout bounds the writing of a frame that is not the stream's. A
// relay that takes nothing for so long is taken as dead.
const controlTimeout = 10 * time.Second

// send writes a frame of the session's own.
func (s *Session) send(whole []byte) error {
	return s.write(whole, time.Now().Add(controlTimeout))
}

// write writes a frame before the deadline, if that is not zero.
func (s *Session) write(whole []byte, deadline time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.conn.SetWriteDeadline(deadline)
	if _, err := s.conn.Write(whole); err != nil {
		s.end(fmt.Errorf("relay connection: %w", err))
		return fmt.Errorf("write to relay: %w", err)
	}
	return nil
}

// Standby sends one small message, which the relay passes to the other end:
// the session is still wanted. The session must be paired.
func (s *Session) Standby() error {
	return s.send(frame(frameStandby, make([]byte, standbyBody)))
}

// OpenUDP makes the node's UDP socket this end's media leg: it sends the token
// with send, towards the relay's UDP address, every so often until the relay
// says over TLS that the leg is open.
func (s *Session) OpenUDP(ctx context.Context, every time.Duration, send func(packet []byte) error) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	token, err := s.ask(ctx, UDP)
	if err != nil {
		return fmt.Errorf("open media leg over udp: %w", err)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := send(token.Wire()); err != nil {
			return fmt.Errorf("open media leg over udp: %w", err)
		}
		select {
		case transport := <-s.opened:
			if transport == UDP {
				return nil
			}
		case <-ticker.C:
		case <-s.done:
			return fmt.Errorf("open media leg over udp: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("open media leg over udp: %w", context.Cause(ctx))
		}
	}
}

// OpenTCP opens a TCP connection to the relay with dial and makes it this
// end's media leg: packets go over it with the framing of package media.
func (s *Session) OpenTCP(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	token, err := s.ask(ctx, TCP)
	if err != nil {
		return nil, fmt.Errorf("open media leg over tcp: %w", err)
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("open media leg over tcp: %w", err)
	}
	if err := s.present(ctx, conn, token); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open media leg over tcp: %w", err)
	}
	return conn, nil
}

// present sends the token on a new media connection and waits until the relay
// has taken it.
func (s *Session) present(ctx context.Context, conn net.Conn, token Token) error {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write(token.Wire()); err != nil {
		return err
	}
	conn.SetWriteDeadline(time.Time{})
	for {
		select {
		case transport := <-s.opened:
			if transport == TCP {
				return nil
			}
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ask asks the relay for a token.
func (s *Session) ask(ctx context.Context, transport Transport) (Token, error) {
	select { // the answer to an ask that was given up
	case <-s.tokens:
	default:
	}
	if err := s.send(frame(frameAsk, []byte{byte(transport)})); err != nil {
		return Token{}, err
	}
	select {
	case token := <-s.tokens:
		return token, nil
	case <-s.done:
		return Token{}, s.err
	case <-ctx.Done():
		return Token{}, errors.Join(errors.New("no token from the relay"), context.Cause(ctx))
	}
}
