package relay

import (
	"io"
	"net"
	"time"
)

// sink is a connection that swallows what is written.
type sink struct{}

func (sink) Read([]byte) (int, error)         { return 0, io.EOF }
func (sink) Write(b []byte) (int, error)      { return len(b), nil }
func (sink) Close() error                     { return nil }
func (sink) LocalAddr() net.Addr              { return nil }
func (sink) RemoteAddr() net.Addr             { return nil }
func (sink) SetDeadline(time.Time) error      { return nil }
func (sink) SetReadDeadline(time.Time) error  { return nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }

// script is a connection on which a fixed text arrives.
type script struct{ text io.Reader }

func (s script) Read(b []byte) (int, error)     { return s.text.Read(b) }
func (script) Write(b []byte) (int, error)      { return len(b), nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return nil }
func (script) RemoteAddr() net.Addr             { return nil }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }

// record is a connection that keeps what is written and has nothing to read
// until it is closed.
type record struct {
	sink
	wrote  chan []byte
	closed chan struct{}
}

func newRecord() *record { return &record{wrote: make(chan []byte, 16), closed: make(chan struct{})} }

func (r *record) Read([]byte) (int, error) {
	<-r.closed
	return 0, io.EOF
}

func (r *record) Write(b []byte) (int, error) {
	r.wrote <- append([]byte(nil), b...)
	return len(b), nil
}

func (r *record) Close() error {
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	return nil
}
