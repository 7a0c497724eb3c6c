package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/pkg/stdcopy"
)

// maxImage bounds the image of the whole testbed, in bytes.
const maxImage = 30e6

// testbedTimeout bounds a run of one scenario in a container.
const testbedTimeout = 2 * time.Minute

// testbed is a container of the whole testbed as docker run makes it of Spared
// and Needs, with the narrow seccomp profile.
func testbed(e *Engine, image string) (*container.Config, *container.HostConfig) {
	return &container.Config{Image: image, Cmd: []string{"run", "--only", "open", "--format", "json"}, Labels: e.labels(), User: nobody},
		&container.HostConfig{
			NetworkMode: "none", ReadonlyRootfs: true, CapDrop: []string{"ALL"},
			SecurityOpt: []string{"no-new-privileges", "apparmor=unconfined", "seccomp=" + Seccomp},
			MaskedPaths: []string{}, ReadonlyPaths: []string{}, // systempaths=unconfined is docker run's word for it
		}
}

// runToEnd runs a container and returns how it ended and what it wrote.
func runToEnd(t *testing.T, e *Engine, c *container.Config, h *container.HostConfig) (status int64, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testbedTimeout)
	defer cancel()
	created, err := e.api.ContainerCreate(ctx, c, h, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer e.remove(context.Background(), created.ID)
	ended, failed := e.api.ContainerWait(ctx, created.ID, container.WaitConditionNextExit)
	if err := e.api.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-ended:
		status = r.StatusCode
	case err := <-failed:
		t.Fatal(err)
	}
	logs, err := e.api.ContainerLogs(ctx, created.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, logs); err != nil {
		t.Fatal(err)
	}
	return status, out.String(), errs.String()
}

// The whole testbed runs in one container without any capability, and says
// what it lacks where one of its needs isn't met.
func TestTestbed(t *testing.T) {
	e := connect(t)
	binary := filepath.Join(t.TempDir(), "gauntlet")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "gauntlet/cmd/gauntlet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	name := "gauntlet-testbed:" + strings.TrimPrefix(e.Run(), "gauntlet-test-")
	size, needs, err := e.Testbed(t.Context(), binary, name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := e.api.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := e.api.ImageRemove(context.Background(), found.ID, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
			t.Error(err)
		}
	})
	if size > maxImage {
		t.Errorf("the image has %d bytes, more than %d", size, int(maxImage))
	}
	if len(needs) < len(Needs()) {
		t.Errorf("it needs %v, less than %v", needs, Needs())
	}
	if found.Config.Labels[Label] == "" || len(found.RootFS.Layers) != 1 {
		t.Errorf("labels %v, %d layers; want %s, and the binary's alone", found.Config.Labels, len(found.RootFS.Layers), Label)
	}

	config, host := testbed(e, name)
	status, stdout, stderr := runToEnd(t, e, config, host)
	var results struct {
		Run struct {
			Verdicts map[string]int `json:"verdicts"`
		} `json:"run"`
	}
	if err := json.Unmarshal([]byte(stdout), &results); err != nil || status != 0 || results.Run.Verdicts["pass"] == 0 {
		t.Fatalf("exit status %d, %v, %v\n%s", status, results.Run.Verdicts, err, stderr)
	}

	for lack, change := range map[string]func(*container.Config, *container.HostConfig){
		"user":        func(c *container.Config, _ *container.HostConfig) { c.User = "" },
		"seccomp":     func(_ *container.Config, h *container.HostConfig) { h.SecurityOpt = h.SecurityOpt[:2] },
		"systempaths": func(_ *container.Config, h *container.HostConfig) { h.MaskedPaths, h.ReadonlyPaths = nil, nil },
	} {
		t.Run("without "+lack, func(t *testing.T) {
			c, h := testbed(e, name)
			change(c, h)
			status, _, stderr := runToEnd(t, e, c, h)
			if status == 0 || !strings.Contains(stderr, "this machine does not let you make user namespaces") || !strings.Contains(stderr, lack) {
				t.Errorf("exit status %d, and it says:\n%s", status, stderr)
			}
			if lines := strings.Count(stderr, "\n"); lines != 1 {
				t.Errorf("%d lines, want a sentence:\n%s", lines, stderr)
			}
		})
	}
}
