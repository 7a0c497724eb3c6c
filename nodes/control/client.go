package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
)

// maxEvents bounds the notifications of one node: more of them is a flood.
const maxEvents = 10_000

// ErrNotOffered says that a node doesn't have the function that was asked for.
var ErrNotOffered = errors.New("not offered")

// ErrClosed says that a node closed its stdout: most often, that it ended.
var ErrClosed = errors.New("the node closed its stdout")

// Failed is the reason that a node gives for a function that it tried and
// that failed.
type Failed struct{ Reason string }

func (f *Failed) Error() string { return f.Reason }

// Client is the lab's end of the seam to one node.
type Client struct {
	rpc     *jrpc2.Client
	stopped chan struct{} // closed once the cause of rpc's end is known

	mu    sync.Mutex
	cause error // why the node can no longer be driven
}

// NewClient drives the node that reads in and writes out. onEvent, if not nil,
// gets the node's notifications one after the other.
func NewClient(out io.Reader, in io.WriteCloser, onEvent func(Event)) *Client {
	return newClient(newLines(out, in), onEvent)
}

func newClient(messages channel.Channel, onEvent func(Event)) *Client {
	c := &Client{stopped: make(chan struct{})}
	events := 0
	c.rpc = jrpc2.NewClient(messages, &jrpc2.ClientOptions{
		OnNotify: func(req *jrpc2.Request) {
			if events++; events > maxEvents {
				if events == maxEvents+1 {
					c.fail(fmt.Errorf("the node sent more than %d events", maxEvents))
					go c.rpc.Close()
				}
				return
			}
			var e Event
			if req.Method() == MethodEvent && req.UnmarshalParams(&e) == nil && onEvent != nil {
				onEvent(e)
			}
		},
		OnStop: func(_ *jrpc2.Client, err error) {
			if err == nil || errors.Is(err, io.EOF) {
				err = ErrClosed
			} else {
				err = fmt.Errorf("the node's stdout: %w", err)
			}
			c.fail(err)
			close(c.stopped)
		},
	})
	return c
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
	}
}

// failed is why the node can no longer be driven, nil if that isn't known.
func (c *Client) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Call asks the node for a method. The error is ErrNotOffered, a *Failed with
// the node's reason, the context's cause, or why the node can't be driven.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	var err error
	if result == nil {
		_, err = c.rpc.Call(ctx, method, params)
	} else {
		err = c.rpc.CallResult(ctx, method, params, result)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var coded *jrpc2.Error
	if errors.As(err, &coded) {
		switch coded.Code {
		case jrpc2.MethodNotFound:
			return ErrNotOffered
		case CodeFailed:
			return &Failed{Reason: coded.Message}
		}
	}
	// A node that has just ended may be written to before its end is read, and a call
	// may end before the cause is told.
	err = fmt.Errorf("%s: %w", method, err)
	if !c.rpc.IsStopped() && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	if cause := c.failed(); cause != nil {
		return cause
	}
	select {
	case <-c.stopped:
		return c.failed()
	case <-ctx.Done():
		return err
	}
}

// Close closes the node's stdin, which ends it, and waits until its stdout has
// been read to the end.
func (c *Client) Close() error { return c.rpc.Close() }
