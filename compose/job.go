package compose

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"
)

// TaskVariable is set in the environment of every task of a job, see Task.
const TaskVariable = "GAUNTLET_TASK"

// Task reads the value of TaskVariable, "I/N": the task's number, counted from
// 0, and how many tasks there are. In place of the number 0 Swarm writes the ID
// of the node that the task is on.
func Task(value string) (number, of int, err error) {
	first, second, _ := strings.Cut(value, "/")
	if of, err = strconv.Atoi(second); err == nil && strings.Trim(first, "0123456789") == "" {
		number, err = strconv.Atoi(first)
	}
	if err != nil || number >= of {
		return 0, 0, fmt.Errorf("%q; expected I/N with I from 0 to N-1", value)
	}
	return number, of, nil
}

// JobFilePath is where a file of a job is in its tasks.
func JobFilePath(name string) string { return path.Join("/scenarios", path.Base(name)) }

// Bounds of a job.
const (
	pollInterval = 300 * time.Millisecond // between two looks at its tasks
	maxAttempts  = 3                      // how often a task is run again
)

// JobSpec says what a Swarm replicated job runs.
type JobSpec struct {
	Image   string
	Command []string // what follows the image's entry point
	Tasks   int      // all of them run at once
	// Files are put into every task, see JobFilePath.
	Files []JobFile
	// Capabilities are those that a task keeps; all others are dropped.
	Capabilities []string
}

// JobFile is a file for the tasks of a job.
type JobFile struct {
	Name string
	Data []byte
}

// TaskEvent is something that a person who waits for a job wants to know.
type TaskEvent struct {
	Task  int    // from 0
	State string // as Swarm names it: "running", "failed", "complete", …
	Line  string // of what the task wrote to stderr, where State is ""
	Err   string // why it failed
}

// Job runs a Swarm replicated job to its end and returns what each task wrote to
// its standard output. A task that is lost is run again by the engine; the first
// that completes counts. watch is told what happens, one event at a time. The
// job is removed before Job returns.
func (e *Engine) Job(ctx context.Context, s JobSpec, watch func(TaskEvent)) (outputs [][]byte, err error) {
	if err := e.inSwarm(ctx); err != nil {
		return nil, err
	}
	j := &job{engine: e, spec: s, tell: watch, outputs: make([][]byte, s.Tasks), seen: map[string]swarm.TaskState{}, lost: make([]int, s.Tasks)}
	asked := ctx
	defer func() {
		if asked.Err() == nil && broken(err) { // there is nobody to clean up
			e.lost(err)
			err = context.Cause(e.alive)
			return
		}
		_, cleaning := e.Clean(context.WithoutCancel(ctx), e.run)
		err = errors.Join(err, cleaning)
	}()
	if err := j.create(ctx); err != nil {
		return nil, explain("create the job", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer j.followers.Wait()
	defer cancel()
	return j.outputs, j.follow(ctx)
}

// inSwarm checks that this engine can run a job.
func (e *Engine) inSwarm(ctx context.Context) error {
	info, err := e.api.Info(ctx)
	if err != nil {
		return explain("ask for the swarm", err)
	}
	if !info.Swarm.ControlAvailable {
		return &Unavailable{What: "this Docker engine is no manager of a swarm", Remedy: "docker swarm init makes it one, of this machine alone"}
	}
	return nil
}

// job is a job that is followed.
type job struct {
	engine  *Engine
	spec    JobSpec
	service string

	telling   sync.Mutex
	tell      func(TaskEvent)
	followers sync.WaitGroup

	seen    map[string]swarm.TaskState // by task ID
	outputs [][]byte                   // by slot, nil until it has completed
	lost    []int                      // by slot: how many of its tasks failed
}

func (j *job) report(e TaskEvent) {
	j.telling.Lock()
	defer j.telling.Unlock()
	j.tell(e)
}

func (j *job) create(ctx context.Context) error {
	files, err := j.upload(ctx)
	if err != nil {
		return err
	}
	tasks, attempts, atOnce := uint64(j.spec.Tasks), uint64(maxAttempts), time.Duration(0)
	answer, err := j.engine.api.ServiceCreate(ctx, swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: j.engine.run, Labels: j.engine.labels()},
		Mode:        swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &tasks, TotalCompletions: &tasks}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: j.spec.Image, Args: j.spec.Command, Labels: j.engine.labels(), Configs: files, ReadOnly: true,
				Env:            []string{fmt.Sprintf("%s={{.Task.Slot}}/%d", TaskVariable, j.spec.Tasks)},
				CapabilityDrop: []string{"ALL"}, CapabilityAdd: j.spec.Capabilities,
			},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure, MaxAttempts: &attempts, Delay: &atOnce},
			LogDriver:     &swarm.Driver{Name: "json-file"}, // one that can be read back
		},
	}, swarm.ServiceCreateOptions{})
	j.service = answer.ID
	return err
}

// upload makes a Swarm config of every file.
func (j *job) upload(ctx context.Context) (files []*swarm.ConfigReference, err error) {
	for i, f := range j.spec.Files {
		name := fmt.Sprintf("%s-%d", j.engine.run, i)
		made, err := j.engine.api.ConfigCreate(ctx, swarm.ConfigSpec{
			Annotations: swarm.Annotations{Name: name, Labels: j.engine.labels()}, Data: f.Data,
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		files = append(files, &swarm.ConfigReference{
			ConfigID: made.ID, ConfigName: name,
			File: &swarm.ConfigReferenceFileTarget{Name: JobFilePath(f.Name), UID: "0", GID: "0", Mode: 0o444},
		})
	}
	return files, nil
}

// follow looks at the tasks until each slot has completed, or one never will.
func (j *job) follow(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		tasks, err := j.engine.api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", j.service))})
		if err != nil {
			return explain("look at the job's tasks", err)
		}
		for _, t := range tasks {
			if err := j.look(ctx, t); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(j.outputs, func(o []byte) bool { return o == nil }) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look takes in the state of a task.
func (j *job) look(ctx context.Context, t swarm.Task) error {
	before, known := j.seen[t.ID]
	if known && before == t.Status.State || t.Slot < 0 || t.Slot >= len(j.outputs) {
		return nil
	}
	j.seen[t.ID] = t.Status.State
	j.report(TaskEvent{Task: t.Slot, State: string(t.Status.State), Err: t.Status.Err})
	if started := t.Status.State == swarm.TaskStateRunning || ended(t.Status.State); started && !ended(before) && before != swarm.TaskStateRunning {
		j.followers.Go(func() { j.lines(ctx, t) })
	}
	switch t.Status.State {
	case swarm.TaskStateComplete:
		if j.outputs[t.Slot] != nil {
			return nil // counted already
		}
		output, err := j.output(ctx, t)
		if err != nil {
			return explain(fmt.Sprintf("read the output of task %d", t.Slot), err)
		}
		j.outputs[t.Slot] = output
	case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateOrphaned:
		if j.lost[t.Slot]++; j.lost[t.Slot] > maxAttempts {
			return fmt.Errorf("task %d was lost %d times, at last: %s", t.Slot, j.lost[t.Slot], t.Status.Err)
		}
	}
	return nil
}

func ended(s swarm.TaskState) bool {
	switch s {
	case swarm.TaskStateComplete, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateOrphaned, swarm.TaskStateShutdown:
		return true
	}
	return false
}

// lines tells what a task writes to stderr, as it comes.
func (j *job) lines(ctx context.Context, t swarm.Task) {
	logs, err := j.engine.api.TaskLogs(ctx, t.ID, container.LogsOptions{ShowStderr: true, Follow: true})
	if err != nil {
		return // progress is only for those who wait
	}
	var copying sync.WaitGroup
	defer copying.Wait()
	defer logs.Close()
	r, w := io.Pipe()
	defer r.Close()
	copying.Go(func() {
		_, err := stdcopy.StdCopy(io.Discard, w, logs)
		w.CloseWithError(err)
	})
	for s := bufio.NewScanner(r); s.Scan(); {
		j.report(TaskEvent{Task: t.Slot, Line: strings.TrimSpace(s.Text())})
	}
}

// output is all that a task wrote to stdout, never nil.
func (j *job) output(ctx context.Context, t swarm.Task) ([]byte, error) {
	logs, err := j.engine.api.TaskLogs(ctx, t.ID, container.LogsOptions{ShowStdout: true})
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	output := bytes.NewBuffer([]byte{})
	_, err = stdcopy.StdCopy(output, io.Discard, logs)
	return output.Bytes(), err
}
