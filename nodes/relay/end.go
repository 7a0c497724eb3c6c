package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// end is one end of a session as the relay serves it.
type end struct {
	server *Server
	conn   net.Conn
	user   User

	// Set by join and leave under the server's lock; paired is closed when
	// peer is set, after which peer never changes.
	session *session
	peer    *end
	paired  chan struct{}
	told    chan struct{}  // closed once the end was told that it is paired
	token   Token          // unused one, if any
	source  netip.AddrPort // of media datagrams, if any

	writing sync.Mutex          // one frame at a time
	opened  chan Transport      // media legs to report to the end
	leg     atomic.Pointer[leg] // where media for this end goes
	stream  *rate.Limiter
	media   *rate.Limiter

	stopping sync.Once
	stopped  chan struct{}
	cause    error // set before stopped is closed
}

func newEnd(s *Server, conn net.Conn, user User) *end {
	return &end{
		server:  s,
		conn:    conn,
		user:    user,
		paired:  make(chan struct{}),
		told:    make(chan struct{}),
		opened:  make(chan Transport, 4),
		stream:  rate.NewLimiter(rate.Limit(s.config.StreamRate), s.config.StreamBurst),
		media:   rate.NewLimiter(rate.Limit(s.config.MediaRate), s.config.MediaBurst),
		stopped: make(chan struct{}),
	}
}

// run passes frames until the end leaves, is stopped, or ctx ends.
func (e *end) run(ctx context.Context, buffer *frameBuffer) error {
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	tasks.Go(func() { e.notify(ctx) })
	err := e.receive(ctx, buffer)
	e.stop(err)
	cancel()
	tasks.Wait()
	return e.cause
}

// stop ends the end's connection for a reason; the first reason counts.
func (e *end) stop(cause error) {
	e.stopping.Do(func() {
		e.cause = cause
		close(e.stopped)
	})
}

// notify tells the end what happens to its session, and closes its connection
// when that ends, so that receive returns.
func (e *end) notify(ctx context.Context) {
	defer e.conn.Close()
	wait := time.NewTimer(e.server.config.JoinTimeout)
	defer wait.Stop()
	paired, timeout := e.paired, wait.C
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.stopped:
			e.refuse(e.cause)
			return
		case <-timeout:
			e.stop(errors.New("the other end did not join in time"))
		case <-paired:
			paired, timeout = nil, nil
			e.send(frame(framePaired))
			close(e.told)
		case transport := <-e.opened:
			e.send(frame(frameOpened, []byte{byte(transport)}))
		}
	}
}

// receive reads the end's frames and does what they ask.
func (e *end) receive(ctx context.Context, buffer *frameBuffer) error {
	for {
		e.conn.SetReadDeadline(time.Now().Add(e.server.config.IdleTimeout))
		kind, body, whole, err := buffer.read(e.conn)
		if err != nil {
			return fmt.Errorf("read from relay end: %w", err)
		}
		switch kind {
		case frameStream, frameStandby:
			err = e.pass(ctx, whole)
		case frameAsk:
			var transport Transport
			if transport, err = parseTransport(body); err == nil {
				token := e.server.grant(e, transport)
				err = e.send(frame(frameToken, []byte{byte(transport)}, token[:]))
			}
		default:
			err = fmt.Errorf("%w: type %d", errFrame, kind)
		}
		if err != nil {
			return err
		}
	}
}

// pass hands a frame to the peer as it is, at the rate that the end may have.
func (e *end) pass(ctx context.Context, whole []byte) error {
	select {
	case <-e.paired:
	default:
		return fmt.Errorf("%w: type %d before the session is paired", errFrame, whole[0])
	}
	// The peer must learn that it is paired before anything of this end's
	// comes: it reads no stream until then.
	select {
	case <-e.peer.told:
	case <-e.peer.stopped:
		return errors.New("pass relay frame: the other end left")
	case <-ctx.Done():
		return fmt.Errorf("pass relay frame: %w", context.Cause(ctx))
	}
	if err := e.stream.WaitN(ctx, len(whole)); err != nil {
		return fmt.Errorf("pass relay frame: %w", err)
	}
	if err := e.peer.send(whole); err != nil {
		e.peer.stop(err)
		return fmt.Errorf("pass relay frame: %w", err)
	}
	return nil
}

// send writes a frame to this end.
func (e *end) send(whole []byte) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	e.conn.SetWriteDeadline(time.Now().Add(e.server.config.WriteTimeout))
	if _, err := e.conn.Write(whole); err != nil {
		return fmt.Errorf("write to relay end: %w", err)
	}
	return nil
}

// refuse tells the end why its session ends; that it may fail doesn't matter.
func (e *end) refuse(cause error) {
	reason := cause.Error()
	e.send(frame(frameBye, []byte(reason[:min(len(reason), 200)])))
}

// report says to the end that a leg is open. It never blocks: it is called
// where datagrams are read.
func (e *end) report(transport Transport) {
	select {
	case e.opened <- transport:
	default:
	}
}

// setLeg makes l the leg that media for this end takes, and ends the earlier
// one.
func (e *end) setLeg(l *leg) {
	if old := e.leg.Swap(l); old != nil && old != l {
		old.close()
	}
}
