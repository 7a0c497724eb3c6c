package tests

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"gauntlet/compose/composetest"
	"gauntlet/lab/verdict"
)

// somebodysNode builds a node that is not the overlay's.
func somebodysNode(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "echo")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./testdata/echo")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// somebodysImage builds an image of such a node, as its author might: of the
// program alone, at a path and with arguments of its own. more are further lines of
// its Dockerfile.
func somebodysImage(t *testing.T, api *client.Client, binary string, more ...string) (name string) {
	t.Helper()
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	dockerfile := "FROM scratch\nCOPY echo /node/echo\nENTRYPOINT [\"/node/echo\"]\n" + strings.Join(more, "\n")
	var archive bytes.Buffer
	files := tar.NewWriter(&archive)
	for _, f := range []struct {
		name string
		data []byte
	}{{"Dockerfile", []byte(dockerfile)}, {"echo", program}} {
		err := errors.Join(
			files.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data))}),
			func() error { _, err := files.Write(f.data); return err }(),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	name = "gauntlet-test-echo:" + strings.ToLower(rand.Text())
	answer, err := api.ImageBuild(t.Context(), &archive, build.ImageBuildOptions{Version: build.BuilderV1, Tags: []string{name}, NetworkMode: "none", Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := api.ImageRemove(context.Background(), name, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
			t.Error(err)
		}
	})
	defer answer.Body.Close()
	for d := json.NewDecoder(answer.Body); ; {
		var progress struct {
			Error string `json:"error"`
		}
		if err := d.Decode(&progress); errors.Is(err, io.EOF) {
			return name
		} else if err != nil || progress.Error != "" {
			t.Fatal(err, progress.Error)
		}
	}
}

// A node that is an image of somebody else's is driven and judged as any other,
// and a box in front of it is what decides.
func TestForeignImage(t *testing.T) {
	api := composetest.Engine(t)
	text, err := os.ReadFile("foreign/echo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	scenario := strings.ReplaceAll(string(text), "exec: [python3, echo.py]", `image: "`+somebodysImage(t, api, somebodysNode(t))+`"`)
	known := containersOf(t, api, nil)
	r, o := results(t, "--backend", "docker", file(t, "image.yaml", scenario))
	var got []string
	for _, c := range r.Checks {
		got = append(got, c.Verdict)
	}
	if want := []string{verdict.Pass, verdict.NotOffered, verdict.Pass}; o.status != 0 || !slices.Equal(got, want) {
		t.Errorf("exit status %d, verdicts %v, want %v\n%s%s", o.status, got, want, o.stdout, o.stderr)
	}
	if left := containersOf(t, api, known); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// A node that fails does so for the same reason as a process and in a container.
func TestForeignImageFaults(t *testing.T) {
	api := composetest.Engine(t)
	binary := somebodysNode(t)
	for fault, c := range map[string]struct{ image, want string }{
		"exit": {`CMD ["exit"]`, "alice: prepare: node alice died: exit status 7; its last lines on stderr:\n    no configuration"},
		"deaf": {`CMD ["deaf"]`, "alice: echo: no answer from alice within 2s; it wrote nothing to stderr"},
	} {
		t.Run(fault, func(t *testing.T) {
			reason := func(node string, args ...string) string {
				name := file(t, "fault.yaml", `
topology: {hosts: {alice: {}, bob: {}}}
nodes:
  alice: {`+node+`}
  bob: {exec: [`+binary+`]}
steps:
  - exchange: {caller: alice, callee: bob, function: echo, payload: 524288}
    expect: {path: direct}
    within: 2s
`)
				r, o := results(t, append(args, name)...)
				if len(r.Checks) != 1 || r.Checks[0].Verdict != verdict.Fail || !strings.Contains(r.Checks[0].Reason, c.want) {
					t.Errorf("want a failure: %s\n%s%s", c.want, o.stdout, o.stderr)
					return ""
				}
				return r.Checks[0].Reason
			}
			process := reason(`exec: [` + binary + `, ` + fault + `]`)
			container := reason(`image: "`+somebodysImage(t, api, binary, c.image)+`"`, "--backend", "docker")
			if process != container {
				t.Errorf("as a process: %s\nin a container: %s", process, container)
			}
		})
	}
}

// A node that is an image is told of the proxy before it, and its scenario's file may
// have any name.
func TestForeignImageProxy(t *testing.T) {
	api := composetest.Engine(t)
	binary := somebodysNode(t)
	image := somebodysImage(t, api, binary, `CMD ["write"]`)
	dir := t.TempDir()
	results(t, "--backend", "docker", "-o", dir, file(t, "my test.yaml", `
topology:
  middleboxes: {office: {preset: http-connect}}
  hosts: {alice: {behind: office}, bob: {}}
nodes:
  alice: {image: "`+image+`"}
  bob: {exec: [`+binary+`]}
steps: [{exchange: {caller: alice, callee: bob, function: echo, payload: 907}, expect: {path: failed}}]
`))
	log, err := os.ReadFile(filepath.Join(dir, "my test", "nodes", "alice.log"))
	if err != nil || !regexp.MustCompile(`^proxy http://[0-9.:]+\n$`).Match(log) {
		t.Errorf("on stderr: %s %v", log, err)
	}
}

// A node whose image has a user of its own can write to its folder.
func TestForeignImageUser(t *testing.T) {
	api := composetest.Engine(t)
	binary := somebodysNode(t)
	image := somebodysImage(t, api, binary, "USER 1234:1234", `CMD ["write"]`)
	r, o := results(t, "--backend", "docker", file(t, "user.yaml", `
topology: {hosts: {alice: {}, bob: {}}}
nodes:
  alice: {image: "`+image+`"}
  bob: {exec: [`+binary+`]}
steps: [{exchange: {caller: alice, callee: bob, function: echo, payload: 907}, expect: {path: direct}}]
`))
	if len(r.Checks) != 1 || r.Checks[0].Verdict != verdict.Pass {
		t.Errorf("%s%s", o.stdout, o.stderr)
	}
}
