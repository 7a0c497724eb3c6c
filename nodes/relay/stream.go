package relay

import (
	"fmt"
	"net"
	"time"
)

// stream is the session's byte stream to the other end, as a connection.
type stream struct {
	session *Session
}

// Stream is the byte stream to the other end through the relay, for the ends'
// own TLS. There is one; the session must be paired before it is written to.
// Closing it ends the session. A write deadline counts for writes that begin
// after it was set; one that strikes ends the session too, since half a frame
// cannot be taken back.
func (s *Session) Stream() net.Conn { return stream{s} }

func (c stream) Read(b []byte) (int, error) {
	n, err := c.session.outer.Read(b)
	if err != nil {
		if cause := c.session.Err(); cause != nil {
			err = fmt.Errorf("read relay stream: %w", cause)
		}
	}
	return n, err
}

func (c stream) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		var deadline time.Time
		if d := c.session.deadline.Load(); d != nil {
			deadline = *d
		}
		part := b[written:min(len(b), written+maxBody)]
		if err := c.session.write(frame(frameStream, part), deadline); err != nil {
			return written, err
		}
		written += len(part)
	}
	return written, nil
}

func (c stream) Close() error { return c.session.Close() }

func (c stream) LocalAddr() net.Addr  { return c.session.conn.LocalAddr() }
func (c stream) RemoteAddr() net.Addr { return c.session.conn.RemoteAddr() }

func (c stream) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c stream) SetReadDeadline(t time.Time) error {
	return c.session.outer.SetReadDeadline(t)
}

func (c stream) SetWriteDeadline(t time.Time) error {
	c.session.deadline.Store(&t)
	return nil
}
