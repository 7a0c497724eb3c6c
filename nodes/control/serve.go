package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/creachadair/jrpc2"
)

// Method answers one request of the lab.
type Method func(ctx context.Context, params json.RawMessage) (any, error)

// Methods are what a node offers, by the names of the protocol.
type Methods map[string]Method

// Do makes a Method of a function with typed parameters and result.
func Do[P, R any](f func(context.Context, P) (R, error)) Method {
	return func(ctx context.Context, params json.RawMessage) (any, error) {
		var p P
		if len(params) > 0 {
			if err := json.Unmarshal(params, &p); err != nil {
				return nil, jrpc2.Errorf(jrpc2.InvalidParams, "%v", err)
			}
		}
		return f(ctx, p)
	}
}

// Assign lets the JSON-RPC server find a method by its name.
func (m Methods) Assign(_ context.Context, name string) jrpc2.Handler {
	method, ok := m[name]
	if !ok {
		return nil
	}
	return func(ctx context.Context, req *jrpc2.Request) (any, error) {
		var params json.RawMessage
		if req.HasParams() {
			if err := req.UnmarshalParams(&params); err != nil {
				return nil, err
			}
		}
		result, err := method(ctx, params)
		if err == nil {
			if result == nil {
				result = struct{}{}
			}
			return result, nil
		}
		var coded *jrpc2.Error
		if errors.As(err, &coded) {
			return nil, coded
		}
		return nil, jrpc2.Errorf(CodeFailed, "%v", err)
	}
}

// Session is a node's end of the seam.
type Session struct {
	server *jrpc2.Server
}

// Attach serves a node's methods over in and out. Every request runs in a
// goroutine of its own; ctx is the parent of their contexts.
func Attach(ctx context.Context, in io.Reader, out io.WriteCloser, m Methods) *Session {
	s := jrpc2.NewServer(m, &jrpc2.ServerOptions{
		AllowPush:      true,
		DisableBuiltin: true,
		Concurrency:    16,
		NewContext:     func() context.Context { return ctx },
	})
	return &Session{server: s.Start(newLines(in, out))}
}

// Event notifies the lab.
func (s *Session) Event(ctx context.Context, name string, detail any) error {
	raw, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return s.server.Notify(ctx, MethodEvent, Event{Name: name, Detail: raw})
}

// Wait returns once the lab has closed its end, nil if in order.
func (s *Session) Wait() error { return s.server.Wait() }

// Stop ends the session from the node's side.
func (s *Session) Stop() { s.server.Stop() }
