package compose

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

// inSwarm makes the engine a swarm of this machine alone, unless it is in one.
func inSwarm(t *testing.T, e *Engine) {
	t.Helper()
	info, err := e.api.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Swarm.ControlAvailable {
		return
	}
	if _, err := e.api.SwarmInit(t.Context(), swarm.InitRequest{ListenAddr: "127.0.0.1", AdvertiseAddr: "127.0.0.1"}); err != nil {
		if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := e.api.SwarmLeave(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
}

func TestTask(t *testing.T) {
	for value, want := range map[string]int{"0/1": 0, "3/4": 3, "zc9o736jhkqo/4": 0} {
		if number, _, err := Task(value); number != want || err != nil {
			t.Errorf("%s: %d, %v", value, number, err)
		}
	}
	for _, value := range []string{"", "4/4", "1", "1/x", "/4", "99999999999999999999/4"} {
		if number, of, err := Task(value); err == nil {
			t.Errorf("%q is taken as %d of %d", value, number, of)
		}
	}
}

func TestJob(t *testing.T) {
	e := connect(t)
	image, err := e.Image(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	var unavailable *Unavailable
	if info, err := e.api.Info(t.Context()); err != nil {
		t.Fatal(err)
	} else if !info.Swarm.ControlAvailable {
		if _, err := e.Job(t.Context(), JobSpec{Image: image, Tasks: 1}, func(TaskEvent) {}); !errors.As(err, &unavailable) || !strings.Contains(err.Error(), "docker swarm init") {
			t.Errorf("a job without a swarm: %v", err)
		}
	}
	inSwarm(t, e)
	states := map[string]int{}
	lines := 0
	outputs, err := e.Job(t.Context(), JobSpec{
		Image: image, Command: []string{"task", JobFilePath("a.yaml"), JobFilePath("b.yaml")}, Tasks: 3,
		Files: []JobFile{{"there/a.yaml", []byte("first")}, {"b.yaml", []byte("second")}},
	}, func(e TaskEvent) {
		if e.State == "" {
			lines++
		} else {
			states[e.State]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outputs {
		variable, files, _ := strings.Cut(string(o), " ")
		if number, of, err := Task(variable); number != i || of != 3 || err != nil || files != "first<nil> second<nil>" {
			t.Errorf("task %d wrote %q", i, o)
		}
	}
	if states["complete"] != 3 {
		t.Errorf("states %v", states)
	}
	vanish(t, e)

	// One that fails each time is given up.
	_, err = e.Job(t.Context(), JobSpec{Image: image, Command: []string{"fail"}, Tasks: 1}, func(TaskEvent) {})
	if err == nil || !strings.Contains(err.Error(), "task 0 was lost 4 times") {
		t.Errorf("a task that always fails: %v", err)
	}
	vanish(t, e)
}
