package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/wire"
)

// Call sends a request and waits for its answer, which is decoded into answer
// unless that is nil. An error of the other side's handler is an *[Error].
func (c *Conn) Call(ctx context.Context, method string, req, answer any) error {
	f, err := c.roundTrip(ctx, &wire.Frame{Type: wire.FrameRequest, Method: method}, req)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", method, c.remote, err)
	}
	if f.Type == wire.FrameError {
		return fmt.Errorf("%s to %s: %w", method, c.remote, &Error{Code: f.Code, Text: f.Text})
	}
	if answer == nil {
		return nil
	}
	if err := wire.Unmarshal(f.Body, answer); err != nil {
		return fmt.Errorf("%s to %s: %w", method, c.remote, err)
	}
	return nil
}

// Notify sends a notice: no answer comes.
func (c *Conn) Notify(ctx context.Context, method string, msg any) error {
	if err := c.send(ctx, &wire.Frame{Type: wire.FrameNotice, Method: method}, msg); err != nil {
		return fmt.Errorf("%s to %s: %w", method, c.remote, err)
	}
	return nil
}

// Ping asks the other end for a sign of life.
func (c *Conn) Ping(ctx context.Context) error {
	if _, err := c.roundTrip(ctx, &wire.Frame{Type: wire.FramePing}, nil); err != nil {
		return fmt.Errorf("ping %s: %w", c.remote, err)
	}
	return nil
}

// KeepAlive pings the other end at this interval for as long as the link
// lasts, and ends the link when one ping is not answered in time.
func (c *Conn) KeepAlive(every, timeout time.Duration) {
	c.wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-c.ctx.Done():
				return
			case <-t.C:
			}
			ctx, cancel := context.WithTimeoutCause(c.ctx, timeout, fmt.Errorf("no answer in %s", timeout))
			err := c.Ping(ctx)
			cancel()
			if err != nil {
				c.cancel(err)
				return
			}
		}
	})
}

// roundTrip sends f with a fresh id and waits for the frame that answers it.
func (c *Conn) roundTrip(ctx context.Context, f *wire.Frame, msg any) (*wire.Frame, error) {
	answer := make(chan *wire.Frame, 1)
	c.mu.Lock()
	c.nextID++
	f.ID = c.nextID
	c.waiting[f.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, f.ID)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, f, msg); err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, c.Err()
	}
}

// send encodes and writes one frame. The right to write is a channel, so that
// waiting for it ends with ctx.
func (c *Conn) send(ctx context.Context, f *wire.Frame, msg any) error {
	if msg != nil {
		b, err := wire.Marshal(msg)
		if err != nil {
			return err
		}
		f.Body = b
	}
	b, err := f.Append(nil)
	if err != nil {
		return err
	}
	select {
	case c.writing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return c.Err()
	}
	defer func() { <-c.writing }()
	if err := c.Err(); err != nil {
		return err
	}
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.nc.Write(b); err != nil {
		// A frame may be cut in the middle: nothing after it could be read.
		c.cancel(fmt.Errorf("write to %s: %w", c.remote, err))
		return err
	}
	return nil
}

// read takes frames off the connection until it breaks.
func (c *Conn) read() {
	for {
		f, err := wire.ReadFrame(c.nc)
		if err != nil {
			c.cancel(fmt.Errorf("read from %s: %w", c.remote, err))
			return
		}
		switch f.Type {
		case wire.FrameRequest:
			select {
			case c.served <- struct{}{}:
				c.wg.Go(func() {
					c.answer(c.serve(f))
					<-c.served
				})
			default:
				c.answer(&wire.Frame{Type: wire.FrameError, ID: f.ID, Code: CodeBusy, Text: "too many requests"})
			}
		case wire.FramePing:
			c.answer(&wire.Frame{Type: wire.FramePong, ID: f.ID})
		case wire.FrameNotice:
			select {
			case c.notices <- f:
			default:
				c.cancel(fmt.Errorf("%s sends notices faster than they are handled", c.remote))
				return
			}
		default:
			c.mu.Lock()
			answer := c.waiting[f.ID]
			delete(c.waiting, f.ID)
			c.mu.Unlock()
			if answer != nil {
				answer <- f
			}
		}
	}
}

func (c *Conn) answer(f *wire.Frame) {
	c.send(c.ctx, f, nil) // an error ends the link by itself
}

// serve runs the handler for one request.
func (c *Conn) serve(f *wire.Frame) *wire.Frame {
	result, err := any(nil), error(ErrUnknown)
	if c.handler != nil {
		result, err = c.handler(c.ctx, c, f.Method, f.Body)
	}
	var body []byte
	if err == nil && result != nil {
		body, err = wire.Marshal(result)
	}
	if err != nil {
		code := CodeFailed
		var e *Error
		if errors.As(err, &e) {
			code = e.Code
		}
		return &wire.Frame{Type: wire.FrameError, ID: f.ID, Code: code, Text: err.Error()}
	}
	return &wire.Frame{Type: wire.FrameAnswer, ID: f.ID, Body: body}
}

// notify hands notices to the handler in order.
func (c *Conn) notify() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case f := <-c.notices:
			if c.handler != nil {
				c.handler(c.ctx, c, f.Method, f.Body)
			}
		}
	}
}
