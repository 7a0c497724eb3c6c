package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dialled is a connection in the making.
type dialled struct {
	*os.File
	answer chan error // what came of it, once
}

// connect sends a SYN and finds out what becomes of it. Port 0 is one of the
// probe's own. The returned connection stays open until it is closed, also
// where there is none; it is nil only with an error.
//
// fence sends packets behind the SYN and returns when they have come back,
// which proves that nothing is on the way any more. It is nil where the box
// lets no such packets through; then the answer or the log is waited for.
func (w *Watch) connect(ctx context.Context, from Host, port uint16, to netip.AddrPort, fence func(context.Context) error) (*dialled, attempt, error) {
	if port == 0 {
		port = w.ports(1)
	}
	local := netip.AddrPortFrom(from.Addr, port)
	s := w.follow(local)
	defer s.forget()
	d, err := dial(from, local, to)
	if err != nil {
		return nil, attempt{}, fmt.Errorf("connect from %v to %v: %w", local, to, err)
	}
	if fence == nil {
		err = d.wait(ctx, s)
	}
	var a attempt
	for round := 0; err == nil && round < 3; round++ {
		if fence != nil {
			if err = fence(ctx); err != nil {
				break
			}
		}
		if err = w.sync(ctx); err != nil {
			break
		}
		a = d.state()
		a.dropped = s.known()
		// After the first fence an answer has come; a second one lets it be
		// noticed.
		if a.connected || a.refused || round > 0 && a.dropped != nil {
			break
		}
	}
	if err != nil {
		return nil, a, errors.Join(fmt.Errorf("connect from %v to %v: %w", local, to, err), d.close())
	}
	return d, a, nil
}

// wait returns when something has become of the SYN.
func (d *dialled) wait(ctx context.Context, s *stream) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case answer := <-d.answer:
		d.answer <- answer
		return nil
	case <-s.fated:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return fmt.Errorf("neither answered nor dropped in %v", patience)
	}
}

// state says whether the connection stands or was refused.
func (d *dialled) state() attempt {
	var answer error
	select {
	case answer = <-d.answer:
		d.answer <- answer
	default: // or an answer has come that settled has not noticed yet
		raw, err := d.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { _, answer = answered(int(fd)) })
		}
		answer = errors.Join(err, answer)
	}
	return attempt{
		connected: answer == nil,
		refused:   errors.Is(answer, unix.ECONNREFUSED) || errors.Is(answer, unix.EHOSTUNREACH),
	}
}

func (d *dialled) close() error {
	err := d.SetDeadline(time.Unix(1, 0)) // ends the wait for an answer
	<-d.answer
	return errors.Join(err, d.Close())
}

// dial opens a socket and sends its SYN.
func dial(from Host, local, to netip.AddrPort) (*dialled, error) {
	d := &dialled{answer: make(chan error, 1)}
	err := from.Space.Do(func() error {
		fd, err := tcpSocket(local)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return errors.Join(err, unix.Close(fd))
		}
		d.File = os.NewFile(uintptr(fd), "tcp")
		return nil
	})
	if err != nil {
		return nil, err
	}
	go func() { d.answer <- settled(d.File) }()
	return d, nil
}

// settled waits for the answer to the SYN. It returns nil if connected.
func settled(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var answer error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, answer = answered(int(fd))
		return done
	})
	return errors.Join(err, answer)
}

// answered says whether an answer to the SYN has come, and which: nil if
// connected.
func answered(fd int) (bool, error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if code != 0 {
		return true, unix.Errno(code)
	}
	_, err = unix.Getpeername(fd)
	return !errors.Is(err, unix.ENOTCONN), err
}
