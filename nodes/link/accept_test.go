package link_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"gauntlet/nodes/link"
)

// queue is a listener whose connections and errors a test hands out.
type queue struct {
	net.Listener
	next   chan net.Conn // nil: an error
	closed chan struct{}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.next:
		if c == nil {
			return nil, errors.New("too many open files")
		}
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	close(q.closed)
	return nil
}

// TestAccept has connections served as long as there is room, errors outlasted,
// and everything ended with the context.
func TestAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &queue{next: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		var tasks sync.WaitGroup
		served, release := make(chan net.Conn, 4), make(chan struct{})
		link.Accept(ctx, &tasks, l, slog.New(slog.DiscardHandler), link.AtMost(2), func(c net.Conn) {
			served <- c
			<-release
			c.Close()
		})
		offer := func() (far net.Conn) {
			near, far := net.Pipe()
			l.next <- near
			synctest.Wait()
			return far
		}
		refused := func(far net.Conn) bool {
			_, err := far.Write([]byte("x"))
			return err != nil
		}
		offer()
		l.next <- nil // out of descriptors, for a while
		offer()
		if len(served) != 2 {
			t.Fatalf("%d of 2 connections are served", len(served))
		}
		if third := offer(); len(served) != 2 || !refused(third) {
			t.Error("a third one is not refused")
		}
		release <- struct{}{}
		synctest.Wait()
		offer()
		if len(served) != 3 {
			t.Error("room that was made is not given to another")
		}
		cancel()
		close(release)
		tasks.Wait()
		select {
		case <-l.closed:
		default:
			t.Error("the listener is open after the end")
		}
	})
}
