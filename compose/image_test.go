package compose

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The image of a binary is built once: who has the same binary gets the one that
// is there.
func TestImageIsKept(t *testing.T) {
	e := connect(t)
	first, err := e.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	before, err := e.api.ImageInspect(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := connect(t).Image(t.Context(), program(t)) // another run
	if err != nil {
		t.Fatal(err)
	}
	after, err := e.api.ImageInspect(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	if first != again || before.ID != after.ID || before.Created != after.Created || before.Metadata.LastTagTime != after.Metadata.LastTagTime {
		t.Errorf("%s of %s, and the second time %s of %s", first, before.Metadata.LastTagTime, again, after.Metadata.LastTagTime)
	}
}

// Images that somebody builds from one of these inherit its label, and stay.
func TestCleanKeepsOthersImages(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var removed []string
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // behind the API's version
		answer := `[]`
		switch {
		case r.Method == http.MethodDelete:
			mu.Lock()
			removed = append(removed, strings.TrimPrefix(path, "images/"))
			mu.Unlock()
		case path == "images/json":
			answer = `[
				{"Id": "sha256:1", "RepoTags": ["gauntlet:0123456789ab", "gauntlet:latest"]},
				{"Id": "sha256:2", "RepoTags": ["somebody/node:1"]},
				{"Id": "sha256:3", "RepoTags": ["gauntlets:1", "registry:5000/gauntlet:1"]},
				{"Id": "sha256:4", "RepoTags": null}]`
		case path == "volumes":
			answer = `{}`
		case strings.HasSuffix(r.URL.Path, "version"):
			answer = `{"Version": "20.10", "ApiVersion": "1.41"}`
		}
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer)
	})}}
	server.Start()
	defer server.Close()
	t.Setenv("DOCKER_HOST", "unix://"+listener.Addr().String())
	e, err := Connect(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	count, err := e.Clean(t.Context(), "")
	slices.Sort(removed)
	if want := []string{"gauntlet:0123456789ab", "gauntlet:latest"}; err != nil || count.Images != 1 || !slices.Equal(removed, want) {
		t.Errorf("it removed %v (%d images, %v), want %v", removed, count.Images, err, want)
	}
}
