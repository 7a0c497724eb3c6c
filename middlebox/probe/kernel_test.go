package probe

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// group is the NFLOG group of the boxes in the tests.
const group = 5

// lab is a chain of boxes with a bench on both sides:
//
//	internet -- login, three measuring points
//	   |
//	 boxes
//	   |
//	 two measuring points
type lab struct {
	*testing.T
	plan    *topo.Plan
	network *topo.Network
	watch   *Watch
	subject Subject
	group   uint16 // that the boxes log to
}

// newLab builds it, with these behaviours, outermost first.
func newLab(t *testing.T, chain ...middlebox.Behaviour) *lab {
	t.Helper()
	var d topo.Description
	name := ""
	for i, b := range chain {
		outer := name
		name = string(rune('a' + i))
		d.Boxes = append(d.Boxes, topo.BoxDescription{Name: name, Behind: outer, Translates: b.Translates()})
	}
	d.Hosts = []topo.HostDescription{{Name: "login"}, {Name: "alice", Behind: name}}
	plan, err := topo.NewPlan(d)
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
	l := &lab{T: t, plan: plan, network: network, watch: NewWatch(), group: group}
	bench := topo.NewBench(plan, network)
	t.Cleanup(func() {
		if err := errors.Join(bench.Close(), network.Close()); err != nil {
			t.Error(err)
		}
	})
	for i, b := range chain {
		l.load(plan.Boxes[i].Name, b)
		l.subject.Boxes = append(l.subject.Boxes, plan.Boxes[i].Name)
		l.subject.Services = append(l.subject.Services, b.Allow...)
		if err := l.watch.Box(plan.Boxes[i].Name, network.Namespace(plan.Boxes[i].Name), group); err != nil {
			t.Fatal(err)
		}
	}
	inside, err := bench.Free(name, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range inside {
		space, err := bench.Attach(name, []netip.Addr{a})
		if err != nil {
			t.Fatal(err)
		}
		l.subject.LAN[i] = Host{space, a}
	}
	outside, err := bench.Free(topo.InternetName, 3)
	if err != nil {
		t.Fatal(err)
	}
	space, err := bench.Attach(topo.InternetName, outside)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range outside {
		l.subject.WAN[i] = Host{space, a}
	}
	for i, b := range chain {
		if b.Translates() {
			l.subject.External = plan.Boxes[i].WAN
			break
		}
	}
	login, _ := plan.Host("login")
	l.subject.Denied = []Target{{Name: "login", Addr: login.Addrs[0]}}
	return l
}

// load gives a box a behaviour.
func (l *lab) load(name string, b middlebox.Behaviour) {
	l.Helper()
	box, _ := l.plan.Box(name)
	denied := map[string][]netip.Addr{}
	for _, h := range l.plan.Hosts {
		denied[h.Name] = h.Addrs
	}
	rules, err := middlebox.Rules(middlebox.Box{
		Name: name, Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, Routed: box.Routed(),
		Denied: denied, LogGroup: l.group,
	})
	if err != nil {
		l.Fatal(err)
	}
	if err := middlebox.Load(l.network.Namespace(name), rules); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) quick() Properties {
	l.Helper()
	start := time.Now()
	m, err := Quick(l.Context(), l.watch, l.subject)
	if err != nil {
		l.Fatal(err)
	}
	l.Logf("%v", time.Since(start))
	return m
}

// full measures all of box a, its timers shortened from those of its
// behaviour.
func (l *lab) full(b middlebox.Behaviour, short time.Duration) Properties {
	l.Helper()
	m, err := Full(l.Context(), l.watch, l.subject)
	if err != nil {
		l.Fatal(err)
	}
	if err := Lifetimes(l.Context(), l.watch, l.subject, l.network.Namespace("a"), &m); err != nil {
		l.Fatal(err)
	}
	if b.UDPUnreplied > 0 {
		if err := Stream(l.Context(), l.watch, l.subject, l.network.Namespace("a"), &m); err != nil {
			l.Fatal(err)
		}
	}
	b.UDPTimeout, b.UDPUnreplied = short, 0
	b.TCPEstablished, b.TCPTransitory = short, short
	l.load("a", b)
	if err := l.watch.Reloaded("a"); err != nil {
		l.Fatal(err)
	}
	if err := Timers(l.Context(), l.watch, l.subject, Told{short, short, short}, &m); err != nil {
		l.Fatal(err)
	}
	return m
}

func preset(t *testing.T, name string) middlebox.Behaviour {
	t.Helper()
	b, ok := middlebox.Preset(name)
	if !ok {
		t.Fatalf("no preset %s", name)
	}
	return b
}

// Every preset is measured to be what it declares, by the quick part.
func TestQuickPresets(t *testing.T) {
	for _, name := range middlebox.Presets() {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, preset(t, name))
			m := l.quick()
			for _, d := range Compare(preset(t, name), m) {
				t.Error(d)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
}

// Every preset is measured to be what it declares, by the full part and by
// shortened timers.
func TestFullPresets(t *testing.T) {
	const short = time.Second
	for _, name := range middlebox.Presets() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := preset(t, name)
			l := newLab(t, b)
			m := l.full(b, short)
			for _, d := range Compare(preset(t, name), m) {
				t.Error(d)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
}
