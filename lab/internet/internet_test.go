package internet_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

func up(t *testing.T, text string) *internet.Internet {
	t.Helper()
	h, err := ns.New()
	if err != nil {
		if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
			t.Fatalf("may not be skipped: %v", err)
		}
		t.Skipf("no network namespaces: %v", err)
	}
	h.Close()
	s, err := scenario.Parse("t.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	i, err := internet.Up(t.Context(), s.Topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

const nested = `topology:
  middleboxes:
    isp: {preset: port-restricted}
    home: {preset: symmetric, behind: isp}
    corp: {preset: udp-blocked, deny: ["login:tcp"]}
  hosts: {login: {ip: 198.18.0.9}, alice: {behind: home}, carol: {behind: corp}}
`

func TestUp(t *testing.T) {
	i := up(t, nested)
	if err := i.Answer(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"login", "alice", "carol", "isp", "corp", "home"}, i.Names()); diff != "" {
		t.Error(diff)
	}
	if got := i.Label("alice"); got != "symmetric behind port-restricted" {
		t.Errorf("alice is behind %q", got)
	}
	if got := i.Label("login"); got != "none" {
		t.Errorf("login is behind %q", got)
	}
	if hosts := i.HostsFile(); !strings.Contains(hosts, "198.18.0.9 login\n") || !strings.Contains(hosts, " home\n") {
		t.Errorf("hosts file:\n%s", hosts)
	}
	if dropped, err := i.Dropped("corp"); err != nil || len(dropped) < 3 {
		t.Errorf("corp's rules %v, %v", dropped, err)
	}
	w := i.World(func(host string) []string { return []string{"role of " + host} })
	if b := w.Behaviour("corp", w.Behaviours[0].Time); b.Translates || !b.Filtering.Filters() {
		t.Errorf("corp in the world: %+v", b)
	}
	if h := w.Host("alice"); h == nil || h.Roles[0] != "role of alice" {
		t.Errorf("alice in the world: %+v", h)
	}
}

// A box that translates goes on translating when it becomes a firewall.
func TestChange(t *testing.T) {
	i := up(t, nested)
	blocked, _ := middlebox.Preset("tcp-blocked")
	if err := i.Change("home", blocked, "tcp-blocked"); err != nil {
		t.Fatal(err)
	}
	if got := i.Label("alice"); got != "tcp-blocked behind port-restricted" {
		t.Errorf("alice is behind %q", got)
	}
	w := i.World(func(string) []string { return nil })
	last := w.Behaviours[len(w.Behaviours)-1]
	if last.Box != "home" || !last.Translates || last.Label != "tcp-blocked" || last.Time.IsZero() {
		t.Errorf("the change in the world: %+v", last)
	}
	if err := i.Change("nowhere", blocked, ""); err == nil {
		t.Error("an unknown box is changed")
	}
}
