package gateway

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// config is a box on an internet of its own.
func config(t *testing.T, b middlebox.Behaviour) Config {
	t.Helper()
	plan, err := topo.NewPlan(topo.Description{
		Boxes: []topo.BoxDescription{{Name: "box", Translates: b.Translates()}}, Hosts: []topo.HostDescription{{Name: "inside", Behind: "box"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	network, err := topo.Build(t.Context(), plan)
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	box, _ := plan.Box("box")
	loader, err := middlebox.NewLoader(network.Namespace("box"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(loader.Close(), network.Close()); err != nil {
			t.Error(err)
		}
	})
	rules, err := middlebox.Rules(middlebox.Box{
		Name: "box", Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, LogGroup: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := loader.Load(rules); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return Config{
		Box: "box", Behaviour: b, Namespace: network.Namespace("box"), Loader: loader, WAN: "wan", LAN: "lan",
		External: box.WAN[0], Address: box.LANAddr, Inside: box.LAN, Dir: filepath.Join(dir, "config"), Logs: filepath.Join(dir, "logs"),
	}
}

func proxied(t *testing.T) middlebox.Behaviour {
	t.Helper()
	b, ok := middlebox.Preset("http-connect")
	if !ok {
		t.Fatal("no preset http-connect")
	}
	return b
}

// installed skips the test without a program, or fails it if GAUNTLET_NO_SKIP
// is 1.
func installed(t *testing.T, p Program) {
	t.Helper()
	if _, err := p.Find(); err != nil {
		if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// instead has a shell script be the proxy while the test runs.
func instead(t *testing.T, script string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := Tinyproxy
	t.Cleanup(func() { Tinyproxy = before })
	Tinyproxy.Name = file
}

// Both programs serve when Start returns, keep logs, and leave nothing when they
// are stopped; then they can be started again. One that dies is missed.
func TestStartStop(t *testing.T) {
	for _, test := range []struct {
		program Program
		b       middlebox.Behaviour
	}{
		{Tinyproxy, proxied(t)},
		{MiniUPnPd, middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, PortMapping: true}},
	} {
		t.Run(test.program.Name, func(t *testing.T) {
			installed(t, test.program)
			c := config(t, test.b)
			log := filepath.Join(c.Logs, "box-"+test.program.Name+".log")
			for range 2 {
				if err := os.RemoveAll(log); err != nil {
					t.Fatal(err)
				}
				g, err := Start(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Err(); err != nil {
					t.Error(err)
				}
				written(t, log)
				g.services[0].Kill()
				if err := g.Err(); err == nil || !strings.Contains(err.Error(), "gateway of box: "+test.program.Name+" died: signal: killed; its last lines:") {
					t.Errorf("after it was killed: %v", err)
				}
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the folder for configuration: %v, want none", err)
				}
			}
		})
	}
}

// written waits until there is something in a log: a program may serve before it
// writes.
func written(t *testing.T, log string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing in its log after 10 s")
		}
	}
}

// A program that dies before it serves is an error with its last words.
func TestDies(t *testing.T) {
	instead(t, "echo bind: no such luck >&2; exit 3")
	_, err := Start(t.Context(), config(t, proxied(t)))
	if err == nil || !strings.Contains(err.Error(), "died: exit status 3; its last lines:\n    bind: no such luck") {
		t.Errorf("error %v, want how it died", err)
	}
}

// One that isn't installed is named with its package.
func TestMissing(t *testing.T) {
	instead(t, "")
	Tinyproxy.Name = "no-such-program"
	_, err := Start(t.Context(), config(t, proxied(t)))
	var missing *Missing
	if !errors.As(err, &missing) || !strings.Contains(missing.Error(), "no-such-program is not installed, which proxy: http-connect needs; install Debian's package tinyproxy-bin") {
		t.Errorf("error %v, want the missing program", err)
	}
}

// The answer to RFC 8489's binding request has the transaction ID and the
// address.
func TestSTUN(t *testing.T) {
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, "transaction!"...)
	got := answerSTUN(request, netip.MustParseAddrPort("198.18.1.1:4660"))
	want := "\x01\x01\x00\x0c\x21\x12\xa4\x42transaction!\x00\x01\x00\x08\x00\x01\x12\x34\xc6\x12\x01\x01"
	if string(got) != want {
		t.Errorf("answer % x, want % x", got, want)
	}
	for _, bad := range []string{"", "\x00\x01", "\x01\x01\x00\x00\x21\x12\xa4\x42transaction!"} {
		if got := answerSTUN([]byte(bad), netip.AddrPort{}); got != nil {
			t.Errorf("%q is answered with % x", bad, got)
		}
	}
}
