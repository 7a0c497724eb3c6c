package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"testing"
)

// bus is a node's stdout as all its drivers see it.
type bus struct {
	mu      sync.Mutex
	drivers []io.Writer
}

func (b *bus) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.drivers {
		if n, err := d.Write(p); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

func (b *bus) Close() error { return nil }

// held is a stdin that outlives its drivers.
type held struct{ io.Writer }

func (held) Close() error { return nil }

// Drivers of one node get their own answers, also where one went away before
// its answer came, and where the first line was torn.
func TestShared(t *testing.T) {
	requests, stdin := io.Pipe()
	stdout := &bus{}
	var called sync.Mutex
	called.Lock() // until the first driver is gone
	s := Attach(t.Context(), requests, stdout, Methods{
		"slow": func(context.Context, json.RawMessage) (any, error) {
			called.Lock()
			defer called.Unlock()
			return "slow", nil
		},
		"quick": func(context.Context, json.RawMessage) (any, error) { return "quick", nil },
	})
	defer s.Wait()
	defer stdin.Close()
	drive := func(tag string, torn string) (*Client, func()) {
		out, in := io.Pipe()
		stdout.mu.Lock()
		stdout.drivers = append(stdout.drivers, io.MultiWriter(in))
		stdout.mu.Unlock()
		c := NewSharedClient(io.MultiReader(bytes.NewReader([]byte(torn)), out), held{stdin}, tag, nil)
		return c, func() { in.Close(); c.Close() }
	}

	first, end := drive("a", "")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	waited := make(chan error, 1)
	go func() { waited <- first.Call(ctx, "slow", nil, nil) }()
	second, endSecond := drive("b", "ult\":{}}\n")
	defer endSecond()
	for range 3 {
		var got string
		if err := second.Call(t.Context(), "quick", nil, &got); err != nil || got != "quick" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	cancel(gone)
	if err := <-waited; !errors.Is(err, gone) {
		t.Errorf("the first: %v", err)
	}
	called.Unlock() // the first's answer comes now, for nobody
	var got string
	if err := second.Call(t.Context(), "slow", nil, &got); err != nil || got != "slow" {
		t.Errorf("%q, %v", got, err)
	}
	defer end()
}

func TestRepeat(t *testing.T) {
	calls := 0
	m := Repeat(func(_ context.Context, params json.RawMessage) (any, error) {
		if calls++; string(params) == "bad" {
			return nil, errors.New("refused")
		}
		return calls, nil
	})
	for _, c := range []struct {
		params string
		want   any
	}{{"bad", nil}, {"x", 2}, {"x", 2}, {"bad", nil}, {"x", 2}, {"y", 4}, {"x", 2}} {
		got, err := m(t.Context(), []byte(c.params))
		if got != c.want || (err == nil) == (c.want == nil) {
			t.Errorf("%s: %v, %v; want %v", c.params, got, err, c.want)
		}
	}
}
