package tests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"gauntlet/compose"
	"gauntlet/compose/composetest"
	"gauntlet/lab/report"
)

// shardTimeout bounds a shard of two scenarios in a container.
const shardTimeout = 2 * time.Minute

// kubernetesJob reads the job that is committed; a field that the API doesn't
// have is an error.
func kubernetesJob(t *testing.T) batchv1.Job {
	t.Helper()
	text, err := os.ReadFile("../compose/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job batchv1.Job
	if err := yaml.UnmarshalStrict(text, &job); err != nil {
		t.Fatal(err)
	}
	return job
}

func TestKubernetesJob(t *testing.T) {
	job := kubernetesJob(t)
	if job.APIVersion != "batch/v1" || job.Kind != "Job" || job.Name != "gauntlet" {
		t.Errorf("it is %s %s %s", job.APIVersion, job.Kind, job.Name)
	}
	s := job.Spec
	if s.CompletionMode == nil || *s.CompletionMode != batchv1.IndexedCompletion || *s.Completions != *s.Parallelism || *s.BackoffLimitPerIndex < 1 {
		t.Errorf("%v: %v completions, %v at once, %v times again", s.CompletionMode, *s.Completions, *s.Parallelism, *s.BackoffLimitPerIndex)
	}
	pod := s.Template.Spec
	if pod.RestartPolicy != corev1.RestartPolicyNever || len(pod.Containers) != 1 {
		t.Fatalf("restart policy %s, %d containers", pod.RestartPolicy, len(pod.Containers))
	}
	c := pod.Containers[0]
	if want := fmt.Sprintf("--task=$(JOB_COMPLETION_INDEX)/%d", *s.Completions); c.Image != compose.Latest || !slices.Contains(c.Args, want) {
		t.Errorf("%s %v; want %s with %s", c.Image, c.Args, compose.Latest, want)
	}
	var added []string
	for _, capability := range c.SecurityContext.Capabilities.Add {
		added = append(added, string(capability))
	}
	if diff := cmp.Diff(compose.TaskCapabilities(), added); diff != "" {
		t.Errorf("capabilities (-a task's, +job.yaml's):\n%s", diff)
	}
	if c.Resources.Limits.Cpu().Sign() != 0 || c.Resources.Limits.Memory().Sign() == 0 {
		t.Errorf("limits %v", c.Resources.Limits)
	}
}

// The pods of the job, as this engine runs them, give what one run gives, read
// from their logs.
func TestKubernetesShards(t *testing.T) {
	api := composetest.Engine(t)
	tag := "gauntlet-test:" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + strconv.Itoa(os.Getpid())
	if o := do(t, "image", "--tag", tag); o.status != 0 {
		t.Fatal(o.stderr)
	}
	t.Cleanup(func() { api.ImageRemove(context.Background(), tag, image.RemoveOptions{}) })

	job := kubernetesJob(t)
	only := []string{"--only", "login-blocked,open"}
	logs := make([]string, *job.Spec.Completions)
	var pods errgroup.Group
	for i := range logs {
		pods.Go(func() (err error) {
			logs[i], err = runPod(t, api, tag, job, i, only...)
			return err
		})
	}
	if err := pods.Wait(); err != nil {
		t.Fatal(err)
	}
	whole, _ := results(t, only...)
	o := do(t, "merge", "--format", "json", file(t, "shards.log", strings.Join(logs, "")))
	merged := file(t, "merged.json", o.stdout)
	got, err := report.ReadResults(merged)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, o.stderr, strings.Join(logs, ""))
	}
	if diff := cmp.Diff(verdicts(whole), verdicts(got)); diff != "" {
		t.Errorf("(-one run, +shards):\n%s", diff)
	}
	if o := do(t, "merge", file(t, "some.log", strings.Join(logs[1:], ""))); o.status != report.ExitBadUsage {
		t.Errorf("a shard is missing: exit status %d\n%s", o.status, o.stderr)
	}
}

// runPod runs one pod of the job, confined as its manifest says, and returns its
// log as kubectl gives it, both streams in one.
func runPod(t *testing.T, api *client.Client, tag string, job batchv1.Job, index int, more ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), shardTimeout)
	defer cancel()
	pod := job.Spec.Template.Spec.Containers[0]
	var args []string
	for _, a := range pod.Args {
		args = append(args, strings.ReplaceAll(a, "$(JOB_COMPLETION_INDEX)", strconv.Itoa(index)))
	}
	host := container.HostConfig{
		NetworkMode: "none", ReadonlyRootfs: *pod.SecurityContext.ReadOnlyRootFilesystem,
		SecurityOpt: []string{"apparmor=unconfined"}, // as the manifest has it
		Resources:   container.Resources{Memory: pod.Resources.Limits.Memory().Value()},
	}
	if !*pod.SecurityContext.AllowPrivilegeEscalation {
		host.SecurityOpt = append(host.SecurityOpt, "no-new-privileges")
	}
	for _, c := range pod.SecurityContext.Capabilities.Drop {
		host.CapDrop = append(host.CapDrop, string(c))
	}
	for _, c := range pod.SecurityContext.Capabilities.Add {
		host.CapAdd = append(host.CapAdd, string(c))
	}
	created, err := api.ContainerCreate(ctx, &container.Config{
		Image: tag, Cmd: append(args, more...), User: strconv.FormatInt(*pod.SecurityContext.RunAsUser, 10),
		Labels: map[string]string{compose.Label: "true", compose.RunLabel: "gauntlet-test-pod"},
	}, &host, nil, nil, fmt.Sprintf("gauntlet-test-pod-%d-%d", os.Getpid(), index))
	if err != nil {
		return "", err
	}
	defer api.ContainerRemove(context.Background(), created.ID, container.RemoveOptions{Force: true})
	ended, failed := api.ContainerWait(ctx, created.ID, container.WaitConditionNextExit)
	if err := api.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return "", err
	}
	status := int64(0)
	select {
	case r := <-ended:
		status = r.StatusCode
	case err := <-failed:
		return "", err
	}
	written, err := api.ContainerLogs(ctx, created.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", err
	}
	defer written.Close()
	var log bytes.Buffer
	if _, err := stdcopy.StdCopy(&log, &log, written); err != nil {
		return "", err
	}
	if status != 0 {
		return "", fmt.Errorf("shard %d: exit status %d\n%s", index, status, &log)
	}
	return log.String(), nil
}
