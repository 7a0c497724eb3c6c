package compose

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// requestTimeout is how long the engine may take to begin its answer to any request,
// many times what it takes on a machine that is busy.
const requestTimeout = 30 * time.Second

// silentTimeout is how long it may take once it has been silent for that long.
const silentTimeout = time.Second

// errSilent says that the engine didn't answer in time.
var errSilent = errors.New("it takes requests and gives no answer")

// patient is the way to an engine that is waited for only so long.
type patient struct {
	next     http.RoundTripper
	patience time.Duration
	silent   atomic.Bool // it was, once
}

// bounded has a client's requests go through p.
func (p *patient) bounded(c *client.Client) error {
	direct := c.HTTPClient()
	p.next = direct.Transport
	direct.Transport = p
	return client.WithHTTPClient(direct)(c)
}

func (p *patient) limit() time.Duration {
	if p.silent.Load() {
		return min(p.patience, silentTimeout)
	}
	return p.patience
}

// RoundTrip gives up where no answer begins in time. An image takes as long to be
// sent as it takes.
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ContentLength < 0 {
		return p.next.RoundTrip(r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(p.limit(), func() { cancel(errSilent) })
	answer, err := p.next.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errSilent) {
			p.silent.Store(true)
			err = errSilent
		}
		cancel(nil)
		return nil, err
	}
	answer.Body = &answerBody{answer.Body, func() { cancel(nil) }}
	return answer, nil
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (p *patient) CloseIdleConnections() {
	if c, ok := p.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// answerBody is the body of an answer, whose request ends with it.
type answerBody struct {
	io.ReadCloser
	end func()
}

func (b *answerBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// attach attaches to a container. The client waits for the answer to that however
// long it takes, and whatever becomes of ctx.
func (e *Engine) attach(ctx context.Context, id string, o container.AttachOptions) (types.HijackedResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, e.way.limit(), errSilent)
	defer cancel()
	type attached struct {
		stream types.HijackedResponse
		err    error
	}
	answer := make(chan attached, 1)
	go func() {
		stream, err := e.api.ContainerAttach(ctx, id, o)
		answer <- attached{stream, err}
	}()
	select {
	case a := <-answer:
		return a.stream, a.err
	case <-ctx.Done():
		go func() { // where the engine answers at last
			if a := <-answer; a.err == nil {
				a.stream.Close()
			}
		}()
		err := context.Cause(ctx)
		if errors.Is(err, errSilent) {
			e.way.silent.Store(true)
		}
		return types.HijackedResponse{}, err
	}
}
