package link

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type text struct {
	_    struct{} `cbor:",toarray"`
	Text string
}

// inBubble runs f with two links joined to each other over an internet in
// memory, and closes them.
func inBubble(t *testing.T, near, far Handler, f func(t *testing.T, net *memory.Internet, a, b *Conn)) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.New(memory.Latency(time.Millisecond))
		at := netip.MustParseAddrPort("198.18.0.2:1")
		l, err := n.Host("b", at.Addr()).Listen(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := n.Host("a", netip.MustParseAddr("198.18.0.1")).Dial(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		fc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		a, b := New(t.Context(), nc, nil, near), New(t.Context(), fc, nil, far)
		f(t, n, a, b)
		a.Close()
		b.Close()
		a.Wait()
		b.Wait()
	})
}

func echo(_ context.Context, _ *Conn, method string, body []byte) (any, error) {
	if method != "echo" {
		return nil, ErrUnknown
	}
	var m text
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if m.Text == "bad" {
		return nil, Refused("no %s here", m.Text)
	}
	return m, nil
}

func TestCall(t *testing.T) {
	inBubble(t, echo, echo, func(t *testing.T, _ *memory.Internet, a, b *Conn) {
		var wg sync.WaitGroup
		for _, c := range []*Conn{a, b} {
			for i := range 20 {
				wg.Go(func() {
					sent := text{Text: strings.Repeat("x", i*3000)}
					var got text
					if err := c.Call(t.Context(), "echo", sent, &got); err != nil || got != sent {
						t.Errorf("echo of %d bytes: %d, %v", len(sent.Text), len(got.Text), err)
					}
				})
			}
		}
		wg.Wait()
		var e *Error
		if err := a.Call(t.Context(), "echo", text{Text: "bad"}, nil); !errors.As(err, &e) || e.Code != CodeRefused || e.Text != "no bad here" {
			t.Errorf("refused call: %v", err)
		}
		if err := a.Call(t.Context(), "other", nil, nil); !errors.As(err, &e) || e.Code != CodeUnknown {
			t.Errorf("unknown method: %v", err)
		}
		if err := a.Call(t.Context(), "echo", text{Text: strings.Repeat("x", wire.MaxFrame)}, nil); !errors.Is(err, wire.ErrFrame) || a.Err() != nil {
			t.Errorf("too large a request: %v, link %v", err, a.Err())
		}
	})
}

func TestNoticesKeepOrder(t *testing.T) {
	var mu sync.Mutex
	var got []string
	h := func(_ context.Context, _ *Conn, method string, _ []byte) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, method)
		return nil, nil
	}
	inBubble(t, nil, h, func(t *testing.T, _ *memory.Internet, a, _ *Conn) {
		want := []string{"1", "2", "3", "4", "5"}
		for _, m := range want {
			if err := a.Notify(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // the bubble's clock: all have arrived
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(got, want) {
			t.Errorf("notices %v, want %v", got, want)
		}
	})
}

func TestBusy(t *testing.T) {
	var served atomic.Int32
	h := func(ctx context.Context, _ *Conn, _ string, _ []byte) (any, error) {
		served.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(time.Hour):
		}
		return nil, nil
	}
	inBubble(t, nil, h, func(t *testing.T, _ *memory.Internet, a, _ *Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var busy atomic.Int32
		var wg sync.WaitGroup
		for range maxServed + 5 {
			wg.Go(func() {
				var e *Error
				if err := a.Call(ctx, "wait", nil, nil); errors.As(err, &e) && e.Code == CodeBusy {
					busy.Add(1)
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("call: %v", err)
				}
			})
		}
		wg.Wait()
		if served.Load() != maxServed || busy.Load() != 5 {
			t.Errorf("%d served, %d told busy; want %d and 5", served.Load(), busy.Load(), maxServed)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, n *memory.Internet, a, _ *Conn) {
		a.KeepAlive(10*time.Second, time.Second)
		time.Sleep(time.Minute) // the bubble's clock: six answered pings
		if err := a.Err(); err != nil {
			t.Fatalf("link ended though its pings are answered: %v", err)
		}
		n.SetFilter(func(string, netip.AddrPort, netip.AddrPort) bool { return false })
		start := time.Now()
		<-a.Done()
		if d := time.Since(start); d > 11*time.Second {
			t.Errorf("dead after %s, want 11 s", d)
		}
		if err := a.Err(); !strings.Contains(err.Error(), "no answer in 1s") {
			t.Errorf("ended with %v", err)
		}
		n.SetFilter(nil)
	})
}

func TestEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, _ *memory.Internet, a, b *Conn) {
		closed := make(chan struct{})
		a.OnClose(func() { close(closed) })
		errs := make(chan error)
		go func() { errs <- a.Call(context.Background(), "never", nil, nil) }()
		if err := <-errs; err == nil {
			t.Error("a call without handler is answered")
		}
		b.Close()
		<-closed
		if err := a.Err(); !errors.Is(err, io.EOF) {
			t.Errorf("the other side closed: %v", err)
		}
		if err := b.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("own close: %v", err)
		}
		if err := a.Notify(t.Context(), "x", nil); err == nil {
			t.Error("notice on a dead link")
		}
		again := false
		a.OnClose(func() { again = true })
		if !again {
			t.Error("OnClose of a dead link doesn't run")
		}
	})
}

func TestRubbishEndsLink(t *testing.T) {
	near, far := net.Pipe()
	c := New(t.Context(), near, nil, nil)
	far.Write([]byte{0xff, 0xff, 0xff, 0xff})
	<-c.Done()
	if err := c.Err(); !errors.Is(err, wire.ErrFrame) {
		t.Errorf("ended with %v", err)
	}
	c.Wait()
	far.Close()
}
