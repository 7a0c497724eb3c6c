// Package update is the update server, plain HTTP/1.1, and a client's check
// with it at the beginning of each login.
package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"gauntlet/nodes/network"
)

// Paths of the two checks (BS04's appendix, papers.md L1).
const (
	PathInstalled = "/installed"        // the first run after installation
	PathLatest    = "/getlatestversion" // every later run
)

// Version is the version of this overlay that the server tells.
const Version = "1.0.0"

const (
	maxAnswer   = 256 // bytes of a version
	headTimeout = 5 * time.Second
)

// Server answers both checks with the latest version.
type Server struct {
	http *http.Server
	wg   sync.WaitGroup

	mu       sync.Mutex
	requests map[string]int
}

// Serve starts a server on l, which it owns.
func Serve(l net.Listener, log *slog.Logger) *Server {
	s := &Server{requests: map[string]int{}}
	mux := http.NewServeMux()
	for _, path := range []string{PathInstalled, PathLatest} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.requests[path]++
			s.mu.Unlock()
			log.Info("update check", "path", path, "from", r.RemoteAddr)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, Version+"\n")
		})
	}
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: headTimeout, ReadTimeout: headTimeout,
		WriteTimeout: headTimeout, IdleTimeout: headTimeout, MaxHeaderBytes: 4096,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	s.http.SetKeepAlivesEnabled(false)
	s.wg.Go(func() {
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("update server ended", "error", err)
		}
	})
	return s
}

// Requests is how often a path was asked for.
func (s *Server) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// Close ends the server and waits for it.
func (s *Server) Close() error {
	err := s.http.Close()
	s.wg.Wait()
	if err != nil {
		return fmt.Errorf("stop update server: %w", err)
	}
	return nil
}

// Check asks the server at this address for the latest version, over one
// connection that is closed afterwards. first is for the first run.
func Check(ctx context.Context, nw network.Network, server netip.AddrPort, first bool) (version string, err error) {
	path := PathLatest
	if first {
		path = PathInstalled
	}
	t := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return nw.Dial(ctx, server) },
		DisableKeepAlives: true,
	}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.String()+path, nil)
	if err != nil {
		return "", fmt.Errorf("check for updates: %w", err)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("check for updates: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("check for updates: %s answers %s", server, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("check for updates: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
