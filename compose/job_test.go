package compose

import (
	"strings"
	"testing"

	"gauntlet/compose/composetest"
)

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
	composetest.Swarm(t)
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
