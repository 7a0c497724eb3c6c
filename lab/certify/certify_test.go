package certify

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// permitted skips the test without the right to make namespaces, or fails it if
// GAUNTLET_NO_SKIP is 1.
func permitted(t *testing.T) {
	t.Helper()
	h, err := ns.New()
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func up(t *testing.T, topology string) *internet.Internet {
	t.Helper()
	permitted(t)
	s, err := scenario.Parse("test.yaml", []byte(topology))
	if err != nil {
		t.Fatal(err)
	}
	i, err := internet.Up(t.Context(), s.Topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// A chain of three, a firewall with public addresses, and boxes of two sites.
const several = `
topology:
  middleboxes:
    isp:    {preset: port-restricted}
    home:   {preset: restricted-cone, behind: isp}
    room:   {preset: symmetric, behind: home}
    corp:   {preset: login-blocked}
    plant:  {preset: stateful-firewall, behind: corp}
    open:   {preset: confirming-router}
    closed: {preset: udp-blocked}
  hosts:
    login: {}
    alice: {behind: room}
    bob:   {behind: isp}
    carol: {behind: plant}
    dave:  {behind: open}
    erin:  {behind: closed}
`

func TestBoxes(t *testing.T) {
	i := up(t, several)
	before := counted(t, i)
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range certificates {
		names = append(names, c.Box)
		for _, d := range c.Differences {
			t.Errorf("%s (%s): %s", c.Box, c.Label, d)
		}
		t.Logf("%s: %.1f ms", c.Box, c.Seconds*1e3)
	}
	want := []string{"isp", "corp", "open", "closed", "home", "plant", "room", "room behind home behind isp", "plant behind corp"}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("certificates of %q, want %q", names, want)
	}
	if got := Failed(certificates, []string{"isp", "room"}, 1); got != nil {
		t.Errorf("failed: %q", got)
	}
	if after := counted(t, i); !slices.Equal(before, after) {
		t.Errorf("left behind: %v, before there was %v", after, before)
	}
}

// counted lists what measuring could leave behind in the boxes and the
// internet: counters that have counted, flows, interfaces.
func counted(t *testing.T, i *internet.Internet) (left []string) {
	t.Helper()
	for _, b := range i.Boxes() {
		dropped, err := i.Dropped(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		for rule, n := range dropped {
			if n != 0 {
				left = append(left, b.Name+" dropped "+rule)
			}
		}
	}
	for _, name := range append(i.Names(), "internet") {
		if err := i.Namespace(name).Do(func() error {
			links, err := os.ReadFile("/proc/thread-self/net/dev")
			if err != nil {
				return err
			}
			flows, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			for line := range strings.SplitSeq(string(links), "\n") {
				if device, _, ok := strings.Cut(line, ":"); ok {
					left = append(left, name+" "+strings.TrimSpace(device))
				}
			}
			if len(flows) > 0 {
				left = append(left, name+" "+string(flows))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(left)
	return left
}

// A box that is not what it says is found, alone and as part of a chain; the
// others stay certified.
func TestBoxesFindLiar(t *testing.T) {
	i := up(t, several)
	var home internet.Box
	for _, b := range i.Boxes() {
		if b.Name == "home" {
			home = b
		}
	}
	lie, _ := middlebox.Preset("full-cone")
	rules, err := middlebox.Rules(middlebox.Box{
		Name: "home", Behaviour: lie, WAN: "wan", LAN: "lan",
		WANAddrs: home.WAN, LANPrefix: home.LAN, LogGroup: internet.LogGroup,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := middlebox.Load(i.Namespace("home"), rules); err != nil {
		t.Fatal(err)
	}
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if want := c.Box != "home"; c.Certified() != want {
			t.Errorf("%s certified: %v, want %v: %q", c.Box, c.Certified(), want, c.Differences)
		}
		if c.Box == "home" && !(len(c.Differences) == 1 && strings.HasPrefix(c.Differences[0], "filtering: ")) {
			t.Errorf("home differs in %q, want its filtering", c.Differences)
		}
	}
	for box, want := range map[string]int{"home": 1, "corp": 0} {
		if got := Failed(certificates, []string{box}, 1); len(got) != want {
			t.Errorf("reasons to doubt %s: %q, want %d", box, got, want)
		}
	}
	// The rules that the box should have are back.
	certificates, err = Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if !c.Certified() {
			t.Errorf("after the reset, %s: %q", c.Box, c.Differences)
		}
	}
}

func TestBoxesOfNone(t *testing.T) {
	certificates, err := Boxes(t.Context(), up(t, "topology: {hosts: {alice: {}}}"))
	if err != nil || certificates != nil {
		t.Errorf("%v, %v; want nothing", certificates, err)
	}
}

// A LAN without room for measuring points concerns its box alone; a log that
// somebody else reads concerns all.
func TestBoxesCannot(t *testing.T) {
	i := up(t, "topology: {middleboxes: {full: {preset: symmetric}, other: {preset: symmetric}}, hosts: {'h[1-253]': {behind: full}}}")
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	if c := certificates[0]; c.Certified() || c.Verdict() != "inconclusive" || !strings.Contains(c.Differences[0], "free addresses") {
		t.Errorf("a full LAN: %s, %q; want inconclusive for lack of addresses", c.Verdict(), c.Differences)
	}
	if c := certificates[1]; !c.Certified() {
		t.Errorf("the box beside it: %q", c.Differences)
	}
	i = up(t, several)
	other, err := newBench(i)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Boxes(t.Context(), i); !errors.Is(err, unix.EPERM) {
		t.Errorf("a log that is read already: %v, want EPERM", err)
	}
	if err := other.close(); err != nil {
		t.Error(err)
	}
}

// Every preset is certified, by the whole of the probe.
func TestPresets(t *testing.T) {
	permitted(t)
	cells, err := PresetCells()
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := Cells(t.Context(), cells)
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range middlebox.Presets() {
		c := certificates[n]
		if c.Label != name || c.Verdict() != "pass" {
			t.Errorf("%s is %s: %s: %q", name, c.Label, c.Verdict(), c.Differences)
		}
	}
	if _, err := PresetCells("nonsense"); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("an unknown preset: %v, want its name", err)
	}
}

// A box is measured as if its uplink were perfect, and the uplink is as it was
// when that is done.
func TestBoxesBehindBadLinks(t *testing.T) {
	i := up(t, `
topology:
  middleboxes:
    far:  {preset: port-restricted, link: {delay: 2s, jitter: 100ms, loss: 60%}}
    near: {preset: symmetric, behind: far, link: {delay: 300ms, up: {loss: 100%}}}
  hosts: {login: {}, alice: {behind: near}}
`)
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	if len(certificates) != 3 {
		t.Errorf("%d certificates, want 3", len(certificates))
	}
	for _, c := range certificates {
		if !c.Certified() {
			t.Errorf("%s: %q", c.Box, c.Differences)
		}
	}
	if doubts := i.Doubts(); len(doubts) > 0 {
		t.Errorf("doubts: %q", doubts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := i.Answer(ctx); err == nil {
		t.Error("an answer came through a link that loses everything upward")
	}
}
