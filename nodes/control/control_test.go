package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect makes a client and the session of a node with these methods.
func connect(t *testing.T, m Methods, onEvent func(Event)) (*Client, *Session) {
	t.Helper()
	requestR, requestW := io.Pipe()
	answerR, answerW := io.Pipe()
	s := Attach(t.Context(), requestR, answerW, m)
	c := NewClient(answerR, requestW, onEvent)
	t.Cleanup(func() {
		s.Stop()
		answerW.Close()
		c.Close()
	})
	return c, s
}

func TestCall(t *testing.T) {
	login := Do(func(_ context.Context, p LoginParams) (LoginResult, error) {
		if p.Password != "secret" {
			return LoginResult{}, errors.New("wrong password")
		}
		return LoginResult{Path: &Path{Path: "direct", Legs: []Leg{{Transport: "tcp"}}}}, nil
	})
	nothing := Do(func(context.Context, struct{}) (any, error) { return nil, nil })
	c, _ := connect(t, Methods{MethodLogin: login, MethodStop: nothing}, nil)

	var got LoginResult
	p := LoginParams{User: "alice", Password: "secret", Payload: []byte{0, 1, 2}}
	if err := c.Call(t.Context(), MethodLogin, p, &got); err != nil {
		t.Fatal(err)
	}
	if want := (LoginResult{Path: &Path{Path: "direct", Legs: []Leg{{Transport: "tcp"}}}}); !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	var failed *Failed
	if err := c.Call(t.Context(), MethodLogin, LoginParams{}, &got); !errors.As(err, &failed) || failed.Reason != "wrong password" {
		t.Errorf("wrong password: %v", err)
	}
	if err := c.Call(t.Context(), "presence", nil, nil); !errors.Is(err, ErrNotOffered) {
		t.Errorf("unknown method: %v", err)
	}
	if err := c.Call(t.Context(), MethodStop, nil, nil); err != nil {
		t.Errorf("no parameters, no result: %v", err)
	}
	if err := c.Call(t.Context(), MethodLogin, []int{1}, nil); err == nil || errors.As(err, &failed) {
		t.Errorf("parameters of another form: %v", err)
	}
}

func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connect(t, Methods{"hang": func(ctx context.Context, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, nil)
		cause := errors.New("no answer within 10s")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, cause)
		defer cancel()
		if err := c.Call(ctx, "hang", nil, nil); !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
}

func TestEvents(t *testing.T) {
	events := make(chan Event, 1)
	_, s := connect(t, Methods{}, func(e Event) { events <- e })
	if err := s.Event(t.Context(), "ringing", map[string]int{"n": 3}); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Name != "ringing" || string(e.Detail) != `{"n":3}` {
		t.Errorf("%+v", e)
	}
}

// Whatever a node writes on stdout that isn't an answer ends the session, and
// the error says what it was.
func TestBrokenStdout(t *testing.T) {
	for _, test := range []struct{ name, stdout, want string }{
		{"rubbish", "Hello, world!\n", `not a JSON-RPC message: "Hello, world!"`},
		{"control characters", "\x1b[2J\n", `not a JSON-RPC message: "\x1b[2J"`},
		{"half a message", `{"jsonrpc":`, `not a JSON-RPC message`},
		{"a long line", strings.Repeat("x", MaxLine+1), "a line of more than 1048576 bytes: \"xxx"},
		{"nothing", "", "the node closed its stdout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := NewClient(strings.NewReader(test.stdout), discard{}, nil)
			defer c.Close()
			if err := c.Call(t.Context(), MethodStart, nil, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				// The request may have been sent before the end was seen; the next can't.
				if err := c.Call(t.Context(), MethodStart, nil, nil); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
			}
			if test.name == "nothing" {
				if err := c.Call(t.Context(), MethodStart, nil, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("%v is not ErrClosed", err)
				}
			}
		})
	}
}

// broken is the stdin of a node that has ended.
type broken struct{ discard }

func (broken) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

// A node that has ended may be written to before its end is read: what is said is that
// it ended. Of one that reads no more, and doesn't end, it is what the write says.
func TestBrokenStdin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		c := NewClient(r, broken{}, nil)
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Call(ctx, MethodPrepare, nil, nil); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("still there: %v, want the write's error", err)
		}
		time.AfterFunc(time.Second, func() { w.Close() })
		if err := c.Call(t.Context(), MethodPrepare, nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("ended: %v, want that it closed its stdout", err)
		}
	})
}

// A node that sends events without end is cut off.
func TestFloodOfEvents(t *testing.T) {
	event := `{"jsonrpc":"2.0","method":"event","params":{"name":"tick"}}` + "\n"
	r, w := io.Pipe()
	flooding := make(chan struct{})
	go func() {
		defer close(flooding)
		for {
			if _, err := io.WriteString(w, event); err != nil {
				return
			}
		}
	}()
	c := NewClient(r, discard{}, nil)
	if err := c.Call(t.Context(), MethodStart, nil, nil); err == nil || !strings.Contains(err.Error(), "more than 10000 events") {
		t.Errorf("got %v", err)
	}
	r.Close()
	c.Close()
	<-flooding
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func TestSendBound(t *testing.T) {
	l := newLines(strings.NewReader(""), discard{})
	if err := l.Send(make([]byte, MaxLine)); err == nil {
		t.Error("a message over the bound is sent")
	}
	if err := l.Send(make([]byte, MaxLine-1)); err != nil {
		t.Error(err)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n[]\n\n {\"a\":1} "))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLines(strings.NewReader(string(data)), discard{})
		for n := 0; ; n++ {
			message, err := l.Recv()
			if err != nil {
				return
			}
			if !json.Valid(message) || len(message) > MaxLine {
				t.Fatal(fmt.Errorf("message %d: %q", n, message))
			}
		}
	})
}
