package tests

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gauntlet/compose/composetest"
	"gauntlet/lab/report"
)

// answers are what an engine says, by the ends of paths, of which the longest
// counts.
type answers map[string]http.HandlerFunc

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

// recent is an engine that is new enough and has nothing but every image.
func recent(more answers) answers {
	all := answers{
		"/_ping":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") },
		"/version": says(http.StatusOK, `{"Version": "28.5.2", "ApiVersion": "1.41"}`),
		"":         says(http.StatusNotFound, `{"message": "no such thing"}`),
		"/json":    says(http.StatusOK, `{}`), // of an image

		"/containers/json": says(http.StatusOK, `[]`),
		"/networks":        says(http.StatusOK, `[]`),
		"/volumes":         says(http.StatusOK, `{}`),
	}
	for end, answer := range more {
		all[end] = answer
	}
	return all
}

// fakeEngine answers on a unix socket of its own, and returns its address.
func fakeEngine(t *testing.T, a answers) string {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		longest := ""
		for end := range a {
			if strings.HasSuffix(r.URL.Path, end) && len(end) > len(longest) {
				longest = end
			}
		}
		a[longest](w, r)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return "unix://" + listener.Addr().String()
}

const full = `{"message": "mkdir /var/lib/docker/x: no space left on device"}`

// Whatever an engine lacks is said in one sentence, whose advice is one that the
// command can take.
func TestEngineRefusals(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "--backend docker needs root")
	}
	nowhere := func(*testing.T) string { return "unix:///nowhere/docker.sock" }
	fake := func(a answers) func(*testing.T) string {
		return func(t *testing.T) string { return fakeEngine(t, a) }
	}
	run := []string{"run", "--backend", "docker", "--only", "open"}
	for name, c := range map[string]struct {
		engine func(*testing.T) string
		args   []string
		want   string
	}{
		"no engine, run":   {nowhere, run, ": start it, or leave --backend docker out\n"},
		"no engine, swarm": {nowhere, []string{"run", "--swarm", "--only", "open"}, ": start it, or leave --swarm out\n"},
		"no engine, image": {nowhere, []string{"image"}, ": start it\n"},
		"no engine, clean": {nowhere, []string{"clean"}, ": start it\n"},
		"no engine, drive": {nowhere, []string{"drive", "lab", "login", "alice"}, ": start it\n"},
		"too old": {
			fake(answers{"": says(http.StatusOK, `{"Version": "19.03.15", "ApiVersion": "1.40"}`)}), run,
			"is too old: version 19.03.15, API 1.40: API 1.41 (engine 20.10) or newer is needed, or leave --backend docker out\n",
		},
		"no permission": {
			fake(answers{"": says(http.StatusForbidden, `{"message": "permission denied by a plugin"}`)}), run,
			": run gauntlet as root, or leave --backend docker out\n",
		},
		"no name, image": {fake(recent(nil)), []string{"image", "--tag", "Bad Tag"}, "name the image Bad Tag: Error parsing reference: \"Bad Tag\" is not a valid repository/tag: invalid reference format: repository name (library/Bad Tag) must be lowercase\n"},
		"full disk, build": {
			fake(recent(answers{"/json": says(http.StatusNotFound, `{"message": "no such image"}`), "/build": says(http.StatusOK, `{"error": "write /gauntlet: no space left on device"}`)})),
			run, "build the image: the disk of the Docker engine is full: free some of it (docker system df shows what takes it)\n",
		},
		"full disk, image": {
			fake(recent(answers{"/json": says(http.StatusNotFound, `{"message": "no such image"}`), "/build": says(http.StatusInternalServerError, full)})),
			[]string{"image"}, "build the image: the disk of the Docker engine is full: free some of it (docker system df shows what takes it)\n",
		},
		"full disk, start": {
			fake(recent(answers{"/containers/create": says(http.StatusInternalServerError, full)})),
			run, ": the disk of the Docker engine is full: free some of it (docker system df shows what takes it)\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), gauntlet, c.args...)
			cmd.Env = append(cmd.Environ(), "DOCKER_HOST="+c.engine(t))
			o := finish(t, cmd)
			if o.status != report.ExitBadUsage || strings.Count(o.stderr, "\n") != 1 || !strings.HasSuffix(o.stderr, c.want) || o.stdout != "" {
				t.Errorf("exit status %d, want a sentence that ends in %q:\n%s%s", o.status, c.want, o.stdout, o.stderr)
			}
		})
	}
}

// The real engine lets only some users in.
func TestEnginePermission(t *testing.T) {
	composetest.Engine(t)
	const nobody = 65534
	cmd := exec.CommandContext(t.Context(), gauntlet, "clean", "--run", "gauntlet-nobodys")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	if o := finish(t, cmd); o.status != report.ExitBadUsage || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "this user may not use the Docker engine at unix://") {
		t.Errorf("exit status %d\n%s", o.status, o.stderr)
	}
}
