package compose

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gauntlet/compose/composetest"
)

// An engine that takes requests and gives no answer ends what waits for it, and the
// run with it, in one sentence.
func TestSilentEngine(t *testing.T) {
	socket := strings.TrimPrefix(composetest.Engine(t).DaemonHost(), "unix://")
	var silent atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
	proxy.FlushInterval = -1
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if silent.Load() {
			select {
			case <-end:
			case <-r.Context().Done():
			}
			return
		}
		proxy.ServeHTTP(w, r)
	})}}
	server.Start()
	defer server.Close()
	defer close(end)

	direct := connect(t) // takes down what is left
	image, err := direct.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", "unix://"+listener.Addr().String())
	for name, wait := range map[string]func(*testing.T, *Engine, *Container) error{
		"start": func(t *testing.T, e *Engine, _ *Container) error {
			_, err := e.Start(t.Context(), Spec{Name: "x", Image: image})
			return err
		},
		"attach": func(t *testing.T, e *Engine, c *Container) error {
			_, err := e.Attach(t.Context(), Member{ID: c.id})
			return err
		},
		"clean": func(t *testing.T, e *Engine, _ *Container) error { _, err := e.Clean(t.Context(), e.Run()); return err },
		"kill": func(_ *testing.T, e *Engine, c *Container) error {
			c.Kill()
			return context.Cause(e.Alive())
		},
	} {
		t.Run(name, func(t *testing.T) {
			silent.Store(false)
			e, err := Connect(t.Context(), direct.Run())
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			c, err := e.Start(t.Context(), Spec{Name: name, Image: image, Command: []string{"deaf"}})
			if err != nil {
				t.Fatal(err)
			}
			silent.Store(true)
			e.way.patience = time.Second
			ended := make(chan error, 1)
			go func() { ended <- wait(t, e, c) }()
			select {
			case err := <-ended:
				var unavailable *Unavailable
				if !errors.As(err, &unavailable) || !strings.Contains(unavailable.What, "the Docker engine no longer answers") {
					t.Errorf("it says %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it waits")
			}
			c.Kill()
			if cause := context.Cause(e.Alive()); cause == nil || !strings.HasPrefix(cause.Error(), "the Docker engine no longer answers (it takes requests and gives no answer): once it answers, gauntlet clean --run "+e.Run()) {
				t.Errorf("the run goes on, or ended for %v", cause)
			}
		})
	}
}
