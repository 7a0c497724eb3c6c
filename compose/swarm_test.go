package compose

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestJobWithoutSwarm(t *testing.T) {
	fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/version"):
			w.Write([]byte(`{"Version": "28.5.2", "ApiVersion": "1.41"}`))
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", "1.41")
		default:
			w.Write([]byte(`{"Swarm": {"ControlAvailable": false}}`))
		}
	})
	e, err := Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var unavailable *Unavailable
	_, err = e.Job(t.Context(), JobSpec{Image: "x", Tasks: 1}, func(TaskEvent) {})
	if !errors.As(err, &unavailable) || !strings.Contains(err.Error(), "docker swarm init") {
		t.Errorf("a job without a swarm: %v", err)
	}
}
