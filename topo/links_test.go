package topo

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/topo/pump"
)

const delay = 25 * time.Millisecond

// late is how much later than it should a frame may come on a machine that is
// busy with other things. What is typical is BenchmarkLinkDelay's to say.
const late = 5 * time.Second

// pair builds two hosts on the internet, the first with a link, and a socket on
// each.
func pair(t *testing.T, l Link) (n *Network, a, b *net.UDPConn) {
	t.Helper()
	plan, n := build(t, Description{Hosts: []HostDescription{{Name: "a", Link: l}, {Name: "b"}}})
	var conns []*net.UDPConn
	for _, h := range plan.Hosts {
		conns = append(conns, listen(t, n.Namespace(h.Name), h.Addrs[0]))
	}
	return n, conns[0], conns[1]
}

func address4(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// oneWay is how long a datagram takes.
func oneWay(t *testing.T, from, to *net.UDPConn) time.Duration {
	t.Helper()
	start := time.Now()
	deliver(t, from, to, "when")
	return time.Since(start)
}

func within(t *testing.T, what string, took, least time.Duration) {
	t.Helper()
	if took < least || took > least+late {
		t.Errorf("%s took %v, want at least %v and at most %v more", what, took, least, late)
	}
}

func TestLinkDelaysUDP(t *testing.T) {
	n, a, b := pair(t, Link{Up: Shape{Delay: delay}, Down: Shape{Delay: delay}})
	for range 5 {
		start := time.Now()
		deliver(t, a, b, "ping")
		deliver(t, b, a, "pong")
		within(t, "a round trip", time.Since(start), 2*delay)
	}
	if m, d := n.Missing(), n.Doubts(); len(m)+len(d) > 0 {
		t.Errorf("missing %q, doubts %q; want none", m, d)
	}
}

func TestLinkDelaysEachDirectionByItself(t *testing.T) {
	for _, c := range []struct {
		name     string
		link     Link
		up, down time.Duration
	}{
		{"both", Link{Up: Shape{Delay: 10 * time.Millisecond}, Down: Shape{Delay: 40 * time.Millisecond}}, 10 * time.Millisecond, 40 * time.Millisecond},
		{"up alone", Link{Up: Shape{Delay: delay}}, delay, 0},
		{"down alone", Link{Down: Shape{Delay: delay}}, 0, delay},
		// At a rate too: 1000 bytes and 42 of headers at 800 kbit/s take 10 ms each,
		// and the bucket lets the first at once.
		{"and a rate", Link{Up: Shape{Delay: delay, Rate: 800_000}}, delay, 0},
		{"with jitter", Link{Up: Shape{Delay: delay, Jitter: time.Millisecond}}, delay - time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, a, b := pair(t, c.link)
			within(t, "up", oneWay(t, a, b), c.up)
			within(t, "down", oneWay(t, b, a), c.down)
		})
	}
}

// A connection takes a round trip to open, another for an exchange.
func TestLinkDelaysTCP(t *testing.T) {
	plan, n := build(t, Description{Hosts: []HostDescription{
		{Name: "a", Link: Link{Up: Shape{Delay: delay}, Down: Shape{Delay: delay}}}, {Name: "b"},
	}})
	b, _ := plan.Host("b")
	var l net.Listener
	if err := n.Namespace("b").Do(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(b.Addrs[0], 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			c.Close()
		}
		done <- err
	}()
	start := time.Now()
	var c net.Conn
	if err := n.Namespace("a").Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	within(t, "opening", time.Since(start), 2*delay)
	// Of 1 MiB each byte comes back, through a link whose frames all have 1500
	// bytes at most: none is refused.
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1 << 20} {
		start = time.Now()
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, size))
			wrote <- err
		}()
		if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 2*delay {
			t.Errorf("an exchange of %d bytes took %v, want at least %v", size, took, 2*delay)
		}
	}
	c.Close()
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d := n.Doubts(); len(d) > 0 {
		t.Errorf("doubts: %q", d)
	}
}

// burst sends numbered datagrams up the only link of a network and returns the
// numbers that came, in the order in which they did. It sends no more than a
// socket's buffer holds before the link has done with them.
func burst(t *testing.T, n *Network, from, to *net.UDPConn, count int) (came []int) {
	t.Helper()
	const step = 100
	if err := to.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for sent := 0; sent < count; {
		for range step {
			if _, err := from.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(sent)), address4(to)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		report := settled(t, n, func(up pump.Counts) bool { return up.Passed+up.Lost == uint64(sent) })
		for uint64(len(came)) < report.Passed {
			if _, _, err := to.ReadFromUDPAddrPort(buf); err != nil {
				t.Fatalf("%d of %d datagrams: %v", len(came), report.Passed, err)
			}
			came = append(came, int(binary.BigEndian.Uint32(buf)))
		}
	}
	return came
}

// settled waits until what became of the frames up the only link is as it should
// be, and returns it.
func settled(t *testing.T, n *Network, done func(up pump.Counts) bool) pump.Counts {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		reports, err := n.Links()
		if err != nil {
			t.Fatal(err)
		}
		if done(reports[0].Up) {
			return reports[0].Up
		}
		if time.Now().After(deadline) {
			t.Fatalf("frames of the link: %+v", reports[0].Up)
		}
	}
}

func TestLinkKeepsOrderUnderJitter(t *testing.T) {
	n, a, b := pair(t, Link{Up: Shape{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond}})
	came := burst(t, n, a, b, 1000)
	if len(came) != 1000 || !slices.IsSorted(came) {
		t.Errorf("%d datagrams came, sorted: %v; want 1000 in order", len(came), slices.IsSorted(came))
	}
	if d := n.Doubts(); len(d) > 0 {
		t.Errorf("doubts: %q", d)
	}
}

// Of 10,000 datagrams, within five standard deviations of a binomial are lost,
// and the same ones wherever the seed is the same.
func TestLinkLosesBySeed(t *testing.T) {
	const count, loss = 10_000, 0.02
	var runs [][]int
	for _, seed := range []uint64{1, 1, 2} {
		plan, err := NewPlan(Description{Hosts: []HostDescription{{Name: "a", Link: Link{Up: Shape{Loss: loss}}}, {Name: "b"}}})
		if err != nil {
			t.Fatal(err)
		}
		plan.Seed = seed
		n := stand(t, plan)
		from, to := listen(t, n.Namespace("a"), plan.Hosts[0].Addrs[0]), listen(t, n.Namespace("b"), plan.Hosts[1].Addrs[0])
		came := burst(t, n, from, to, count)
		if lost, bound := float64(count-len(came)), 5*math.Sqrt(count*loss*(1-loss)); math.Abs(lost-count*loss) > bound {
			t.Errorf("seed %d: %v of %d lost, want %v ± %.0f", seed, lost, count, count*loss, bound)
		}
		if d := n.Doubts(); len(d) > 0 {
			t.Errorf("seed %d: doubts %q", seed, d)
		}
		runs = append(runs, came)
	}
	if !slices.Equal(runs[0], runs[1]) {
		t.Error("the same seed lost others")
	}
	if slices.Equal(runs[0], runs[2]) {
		t.Error("another seed lost the same")
	}
}

func TestLinkCalm(t *testing.T) {
	n, a, b := pair(t, Link{Up: Shape{Delay: delay, Loss: 1}, Down: Shape{Delay: time.Minute}})
	if err := n.Calm(true); err != nil {
		t.Fatal(err)
	}
	within(t, "up, calm", oneWay(t, a, b), 0)
	within(t, "down, calm", oneWay(t, b, a), 0)
	if err := n.Calm(false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.WriteToUDPAddrPort([]byte("lost"), address4(b)); err != nil {
		t.Fatal(err)
	}
	settled(t, n, func(up pump.Counts) bool { return up.Lost == 1 })
}

// A box's uplink: measuring points and new addresses work as without.
func TestLinkOfABox(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "home", Link: Link{Up: Shape{Delay: delay}, Down: Shape{Delay: delay}}}},
		Hosts: []HostDescription{{Name: "alice", Behind: "home", Link: Link{Up: Shape{Delay: 5 * time.Millisecond}}}, {Name: "login"}},
	})
	alice, _ := plan.Host("alice")
	login, _ := plan.Host("login")
	inside, outside := listen(t, n.Namespace("alice"), alice.Addrs[0]), listen(t, n.Namespace("login"), login.Addrs[0])
	within(t, "up", oneWay(t, inside, outside), delay+5*time.Millisecond)
	within(t, "down", oneWay(t, outside, inside), delay)

	points := NewBench(plan, n)
	for _, p := range []struct {
		at          string
		least, back time.Duration
	}{{"home", 0, 5 * time.Millisecond}, {InternetName, delay, delay + 5*time.Millisecond}} {
		addrs, err := points.Free(p.at, 1)
		if err != nil {
			t.Fatal(err)
		}
		space, err := points.Attach(p.at, addrs)
		if err != nil {
			t.Fatal(err)
		}
		point := listen(t, space, addrs[0])
		within(t, "from the point at "+p.at, oneWay(t, point, inside), p.least)
		within(t, "to the point at "+p.at, oneWay(t, inside, point), p.back)
	}
	if err := points.Close(); err != nil {
		t.Error(err)
	}

	to, err := NewBench(plan, n).Free(InternetName, 1)
	if err != nil {
		t.Fatal(err)
	}
	if plan, err = n.Readdress(plan, "home", to); err != nil {
		t.Fatal(err)
	}
	home, _ := plan.Box("home")
	within(t, "to the new address", oneWay(t, outside, listen(t, n.Namespace("home"), home.WAN[0])), delay)
	within(t, "up, from behind the new address", oneWay(t, inside, outside), delay+5*time.Millisecond)
}

// A network whose links are pumped gives back all that it took, also where it
// can't be built.
func TestLinksUndoThemselves(t *testing.T) {
	l := Link{Up: Shape{Delay: delay, Jitter: delay}}
	_, first := build(t, Description{Hosts: []HostDescription{{Name: "a", Link: l}, {Name: "b", Link: l}}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	plan, n := build(t, Description{Hosts: []HostDescription{{Name: "a", Link: l}, {Name: "b", Link: l}}})
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	twice := *plan
	twice.Hosts = slices.Clone(plan.Hosts)
	twice.Hosts[1].Port = twice.Hosts[0].Port
	if _, err := Build(t.Context(), &twice); err == nil || !strings.Contains(err.Error(), "add veth p1") {
		t.Errorf("build with one port twice: %v", err)
	}
	if after := descriptors(t); after > before { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// An interface that goes away under the pump is an error, and not silence, even
// where nothing is sent.
func TestLinkThatBreaksIsADoubt(t *testing.T) {
	n, a, b := pair(t, Link{Up: Shape{Jitter: time.Nanosecond, Delay: time.Nanosecond}})
	deliver(t, a, b, "before")
	if d := n.Doubts(); len(d) > 0 {
		t.Errorf("doubts before: %q", d)
	}
	if err := inside(n.links.handle, func(r *rtnl) error {
		r.add("remove link", unix.RTM_DELLINK, 0, upMessage(n.links.all[0].far.index))
		return r.flush()
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.links.pump.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the pump goes on without an outer end")
	}
	if d := n.Doubts(); len(d) == 0 || !strings.Contains(d[0], "network is down") {
		t.Errorf("doubts about a link without its outer end: %q", d)
	}
	n.Close() // its error is the doubt
}

// A pump with nothing to do sleeps: under 1 % of a core for 20 links.
func TestLinksIdle(t *testing.T) {
	d := Description{}
	for range 20 {
		d.Hosts = append(d.Hosts, HostDescription{Name: "h" + string(rune('a'+len(d.Hosts))), Link: Link{Up: Shape{Delay: delay, Jitter: delay}}})
	}
	build(t, d)
	// The test's process has work of its own at times, such as the collector's, and
	// links that don't idle have theirs always: the least of several counts.
	least := 1.0
	for i := 0; i < 20 && least > 0.01; i++ {
		used, start := processorTime(t), time.Now()
		timer := time.NewTimer(250 * time.Millisecond) // what is measured is that nothing happens
		<-timer.C
		least = min(least, float64(processorTime(t)-used)/float64(time.Since(start)))
	}
	if least > 0.01 {
		t.Errorf("20 idle links take %.1f %% of a core, want under 1 %%", 100*least)
	}
}

func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A link that varies loses nothing until it is told to, and nothing again after
// that; one that doesn't vary can't be told.
func TestLose(t *testing.T) {
	n, a, b := pair(t, Link{Varies: true})
	came := func() bool {
		if _, err := a.WriteToUDPAddrPort([]byte("x"), address4(b)); err != nil {
			t.Fatal(err)
		}
		b.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := b.Read(make([]byte, 8))
		return err == nil
	}
	deliver(t, a, b, "before")
	if err := n.Lose("a", 1); err != nil {
		t.Fatal(err)
	}
	if came() {
		t.Error("a datagram passed a link that loses all")
	}
	if err := n.Lose("a", 0); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b, "after")
	if err := n.Lose("b", 1); err == nil {
		t.Error("a link that doesn't vary loses packets")
	}
	if doubts := n.Doubts(); len(doubts) > 0 {
		t.Errorf("doubts: %q", doubts)
	}
}
