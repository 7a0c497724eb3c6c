package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// acceptPause is the wait after a failed accept: out of descriptors, as a rule.
const acceptPause = 100 * time.Millisecond

// Admit says whether there is room for a connection. If so, dismiss makes the
// room free again; else it is nil.
type Admit func(c net.Conn) (dismiss func())

// AtMost has room for so many connections at once.
func AtMost(n int) Admit {
	slots := make(chan struct{}, n)
	return func(net.Conn) func() {
		select {
		case slots <- struct{}{}:
			return func() { <-slots }
		default:
			return nil
		}
	}
}

// Accept has the connections to a listener served, each in a goroutine of tasks,
// until ctx ends, which closes the listener, or that is closed. It doesn't wait.
// A connection for which there is no room is closed.
func Accept(ctx context.Context, tasks *sync.WaitGroup, l net.Listener, log *slog.Logger, admit Admit, serve func(net.Conn)) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	tasks.Go(func() {
		defer stop()
		for {
			c, err := l.Accept()
			switch {
			case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
				if c != nil {
					c.Close()
				}
				return
			case err != nil:
				log.Warn("accept", "error", err)
				select {
				case <-time.After(acceptPause):
				case <-ctx.Done():
				}
				continue
			}
			dismiss := admit(c)
			if dismiss == nil {
				c.Close()
				continue
			}
			tasks.Go(func() {
				defer dismiss()
				serve(c)
			})
		}
	})
}
