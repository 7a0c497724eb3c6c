package compose

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// fakeEngine answers on a unix socket of its own as an engine might.
func fakeEngine(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: answer}}
	server.Start()
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	return server
}

func TestConnectRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T)
		want    string
	}{
		"no engine": {
			func(t *testing.T) { t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock") },
			"no Docker engine answers at unix:///nowhere/docker.sock",
		},
		"another machine's": {
			func(t *testing.T) { t.Setenv("DOCKER_HOST", "tcp://192.0.2.1:2375") },
			"is not this machine's",
		},
		"no address": {
			func(t *testing.T) { t.Setenv("DOCKER_HOST", "nonsense") },
			"check DOCKER_HOST",
		},
		"too old": {
			func(t *testing.T) {
				fakeEngine(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Write([]byte(`{"Version": "19.03.15", "ApiVersion": "1.40"}`))
				})
			},
			"is too old: version 19.03.15, API 1.40: API 1.41 (engine 20.10) or newer is needed",
		},
		"no permission": {
			func(t *testing.T) {
				fakeEngine(t, func(w http.ResponseWriter, _ *http.Request) {
					http.Error(w, `{"message": "permission denied by a plugin"}`, http.StatusForbidden)
				})
			},
			"this user may not use the Docker engine at",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.prepare(t)
			_, err := Connect(t.Context(), "test")
			var unavailable *Unavailable
			if !errors.As(err, &unavailable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an Unavailable with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a sentence: %q", err)
			}
		})
	}
}

func TestExplainFullDisk(t *testing.T) {
	fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/version"):
			w.Write([]byte(`{"Version": "28.5.2", "ApiVersion": "1.41"}`))
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", "1.41")
		case strings.HasSuffix(r.URL.Path, "/build"):
			w.Write([]byte(`{"stream": "Step 1/3"}` + "\n" + `{"error": "write /gauntlet: no space left on device"}`))
		default:
			http.Error(w, `{"message": "no such image"}`, http.StatusNotFound)
		}
	})
	e, err := Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Image(t.Context(), program(t))
	var unavailable *Unavailable
	if !errors.As(err, &unavailable) || !strings.Contains(err.Error(), "the disk of the Docker engine is full") {
		t.Errorf("%v, want a full disk", err)
	}
	if err := e.Has(t.Context(), "nobody/knows:it"); err == nil || !strings.Contains(err.Error(), `no image "nobody/knows:it"`) {
		t.Errorf("%v, want an unknown image", err)
	}
}

// However far a container has come when the engine's connection breaks, Alive has
// ended by the time that Start returns, so that nobody takes it for another failure.
func TestAliveEndsWithTheConnection(t *testing.T) {
	for _, last := range []string{"version", "create", "attach", "start"} { // what is answered last
		t.Run("after "+last, func(t *testing.T) {
			var server *httptest.Server
			server = fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
				asked := path.Base(r.URL.Path)
				if asked == last { // the answer still arrives
					w.Header().Set("Connection", "close")
					server.Listener.Close()
				}
				switch asked {
				case "version":
					w.Write([]byte(`{"Version": "28.5.2", "ApiVersion": "1.41"}`))
				case "_ping":
					w.Header().Set("Api-Version", "1.41")
				case "create":
					w.WriteHeader(http.StatusCreated)
					w.Write([]byte(`{"Id": "0123456789abcdef"}`))
				case "attach":
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
					io.Copy(io.Discard, conn)
				case "start":
					w.WriteHeader(http.StatusNoContent)
				}
			})
			e, err := Connect(t.Context(), "test")
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Start(t.Context(), Spec{Name: "alice", Image: "gauntlet"})
			lost := context.Cause(e.Alive())
			if err == nil || lost == nil || !strings.Contains(lost.Error(), "the connection to the Docker engine was lost") {
				t.Errorf("%v, and Alive ended with %v", err, lost)
			}
		})
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"1.40", "1.41", true}, {"1.41", "1.41", false}, {"1.9", "1.41", true}, {"2.0", "1.41", false}, {"", "1.41", true}} {
		if got := older(c.a, c.b); got != c.want {
			t.Errorf("older(%q, %q) = %v", c.a, c.b, got)
		}
	}
}
