package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay joins a client's connection to one to the login server, as a
// supernode does for clients that can't reach it. It moves at most limit
// bytes, both ways together, for at most the given time, and closes both. It
// returns how many bytes it moved.
func Relay(ctx context.Context, client, server net.Conn, limit int64, within time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not done in %s", within))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var moved atomic.Int64
	var wg sync.WaitGroup
	var errs [2]error
	pump := func(dst, src net.Conn, err *error) {
		*err = copyBounded(dst, src, &moved, limit)
		if *err != nil {
			cancel()
			return
		}
		// The end of one direction is handed on; the other may still flow.
		if h, ok := dst.(interface{ CloseWrite() error }); !ok || h.CloseWrite() != nil {
			cancel()
		}
	}
	wg.Go(func() { pump(server, client, &errs[0]) })
	wg.Go(func() { pump(client, server, &errs[1]) })
	wg.Wait()
	client.Close()
	server.Close()
	if err := errors.Join(errs[:]...); err != nil && !errors.Is(err, net.ErrClosed) {
		return moved.Load(), fmt.Errorf("relay login: %w", err)
	}
	return moved.Load(), nil
}

// errLimit ends a relayed login that is too large.
var errLimit = errors.New("more bytes than a login takes")

func copyBounded(dst io.Writer, src io.Reader, moved *atomic.Int64, limit int64) error {
	buf := make([]byte, 8<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if moved.Add(int64(n)) > limit {
				return errLimit
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
