// Package composetest readies the Docker engine of this machine for tests.
package composetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

// Engine skips the test where there is no engine, or no root; if
// GAUNTLET_NO_SKIP is 1 the test fails instead, unless GAUNTLET_NO_ENGINE is 1,
// by which whoever runs the tests says that this machine has none.
func Engine(t testing.TB) *client.Client {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "only root can put interfaces into containers")
	}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err == nil {
		_, err = api.ServerVersion(t.Context())
	}
	if err != nil {
		skip(t, err.Error())
	}
	t.Cleanup(func() { api.Close() })
	return api
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("GAUNTLET_NO_SKIP") == "1" && os.Getenv("GAUNTLET_NO_ENGINE") != "1" {
		t.Fatalf("may not be skipped: %s", why)
	}
	t.Skip(why)
}

// Swarm makes the engine a swarm of this machine alone until the test ends. Only
// one test has it at a time, whichever process it is in.
func Swarm(t testing.TB) {
	t.Helper()
	api := Engine(t)
	lock, err := os.Create(filepath.Join(os.TempDir(), "gauntlet-test-swarm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	info, err := api.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Swarm.ControlAvailable {
		return // somebody else's
	}
	if _, err := api.SwarmInit(t.Context(), swarm.InitRequest{ListenAddr: "127.0.0.1", AdvertiseAddr: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.SwarmLeave(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
}
