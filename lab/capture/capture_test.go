package capture

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"gauntlet/lab/evidence"
	"gauntlet/topo/packet"
)

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("10 s of the test"))
	t.Cleanup(cancel)
	return ctx
}

func world() evidence.World {
	return evidence.World{
		Hosts: []evidence.Host{
			{Name: "inner", Addresses: []netip.Addr{innerAddress}, Behind: "router"},
			{Name: "outer", Addresses: []netip.Addr{outerAddress}},
		},
		Boxes: []evidence.Box{{
			Name: "router", WAN: []netip.Addr{routerAddress}, LAN: netip.MustParsePrefix("10.0.1.0/24"),
		}},
		Behaviours: []evidence.Change{{
			Box: "router", Translates: true, Filtering: evidence.AddressAndPortDependent,
		}},
	}
}

func writeWorld(t testing.TB, dir string) {
	t.Helper()
	must(t, evidence.WriteWorld(dir, world()))
}

// TestRecord drives two exchanges through a masquerading router, one asked and
// one not, and reads back what was recorded.
func TestRecord(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	writeWorld(t, dir)
	ctx := timeout(t)
	r, err := Start(ctx, l.config(dir))
	must(t, err)
	inside, outside := listen(t, l.inner, "10.0.1.2:4000"), listen(t, l.outer, "198.18.1.2:5000")

	before := time.Now()
	const datagrams = 20
	var mapped netip.AddrPort
	for range datagrams {
		send(t, inside, netip.AddrPortFrom(outerAddress, 5000), 700)
		_, mapped = receive(t, outside)
		send(t, outside, mapped, 300)
		receive(t, inside)
	}
	stranger := listen(t, l.outer, "198.18.1.2:6000")
	for range 3 {
		send(t, stranger, netip.AddrPortFrom(routerAddress, 7777), 50)
	}
	must(t, r.Conntrack("router"))
	must(t, r.Sync(ctx))
	after := time.Now()

	live, err := evidence.Read(dir)
	must(t, err)
	if flows := live.Flows(before, after); len(flows) != 2 {
		t.Errorf("after Sync the files show %d flows, not 2: %v", len(flows), flows)
	}
	losses, err := r.Close()
	must(t, err)
	if reasons := losses.Reasons(); len(reasons) > 0 {
		t.Errorf("losses: %v", reasons)
	}
	if got := losses.Routers[0].Rules[dropRule]; got != (evidence.RuleCount{Counted: 3, Logged: 3}) {
		t.Errorf("rule counts %+v, want 3 and 3", got)
	}

	ev, err := evidence.Read(dir)
	must(t, err)
	if reasons := ev.Losses.Reasons(); len(reasons) > 0 {
		t.Errorf("losses that were read: %v", reasons)
	}
	flows := ev.Flows(before, after)
	if len(flows) != 2 {
		t.Fatalf("%d flows, not 2: %v", len(flows), flows)
	}
	asked, unasked := flows[0], flows[1]
	want := [2]evidence.Endpoint{
		{Host: "inner", Local: netip.AddrPortFrom(innerAddress, 4000), Seen: mapped},
		{Host: "outer", Local: netip.AddrPortFrom(outerAddress, 5000), Seen: netip.AddrPortFrom(outerAddress, 5000)},
	}
	if got := [2]evidence.Endpoint{asked.A, asked.B}; got != want {
		t.Errorf("ends %v, want %v", got, want)
	}
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"sent", asked.Forward.Sent, 700 * datagrams}, {"arrived", asked.Forward.Received, 700 * datagrams},
		{"sent back", asked.Backward.Sent, 300 * datagrams}, {"arrived back", asked.Backward.Received, 300 * datagrams},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
	in, out, ok := asked.Crossed("router")
	if !ok || !out.Before(in) || out.Before(before) || in.After(after) {
		t.Errorf("crossed the router in at %v, out at %v, seen %v", in, out, ok)
	}
	if len(unasked.Drops) != 3 || unasked.Drops[0].Router != "router" || unasked.Drops[0].Rule != dropRule {
		t.Errorf("drops of %v: %+v", unasked, unasked.Drops)
	}
	if diff := cmp.Diff([]string{"inner"}, unasked.Toward); diff != "" {
		t.Errorf("unasked packets were meant for (-want +got):\n%s", diff)
	}
	for _, d := range unasked.Drops {
		if d.From != "outer" || d.Time.Before(before) || d.Time.After(after) {
			t.Errorf("drop %+v is not of outer between %v and %v", d, before, after)
		}
	}
	compatible(t, filepath.Join(dir, evidence.CaptureFile))
}

// compatible reads the capture with another implementation of the format.
func compatible(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(name)
	must(t, err)
	defer file.Close()
	reader, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true})
	must(t, err)
	packets := map[int]int{}
	for {
		data, info, err := reader.ReadPacketData()
		if err != nil {
			break
		}
		packets[info.InterfaceIndex]++
		if len(data) != info.Length || time.Since(info.Timestamp) > time.Minute {
			t.Errorf("packet of %d of %d bytes at %v", len(data), info.Length, info.Timestamp)
		}
	}
	for i, want := range []string{"inner/eth0", "outer/eth0", "router/lan", "router/wan"} {
		about, err := reader.Interface(i)
		must(t, err)
		if about.Name != want || about.LinkType != layers.LinkTypeEthernet || about.TimestampResolution != 9 {
			t.Errorf("interface %d: %+v", i, about)
		}
		if packets[i] < 40 || about.Statistics.PacketsReceived < 40 || about.Statistics.PacketsDropped != 0 {
			t.Errorf("%s: %d packets, statistics %+v", want, packets[i], about.Statistics)
		}
	}
}

// TestSync sends and syncs many times: each time the files must have every
// packet already.
func TestSync(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	writeWorld(t, dir)
	ctx := timeout(t)
	r, err := Start(ctx, l.config(dir))
	must(t, err)
	inside, outside := listen(t, l.inner, "10.0.1.2:4000"), listen(t, l.outer, "198.18.1.2:5000")
	stranger := listen(t, l.outer, "198.18.1.2:6000")
	for round := 1; round <= 20; round++ {
		send(t, stranger, netip.AddrPortFrom(routerAddress, 7777), 50)
		send(t, inside, netip.AddrPortFrom(outerAddress, 5000), 100)
		receive(t, outside)
		must(t, r.Conntrack())
		must(t, r.Sync(ctx))
		ev, err := evidence.Read(dir)
		must(t, err)
		var bytes int64
		drops := 0
		for _, f := range ev.All() {
			bytes += f.Forward.Received
			drops += len(f.Drops)
		}
		if bytes != int64(100*round) || drops != round {
			t.Fatalf("round %d: %d bytes and %d drops in the files", round, bytes, drops)
		}
	}
	_, err = r.Close()
	must(t, err)
}

func TestRest(t *testing.T) {
	l := newLab(t)
	r, err := Start(timeout(t), l.config(t.TempDir()))
	must(t, err)
	defer func() {
		_, err := r.Close()
		must(t, err)
	}()
	inside, outside := listen(t, l.inner, "10.0.1.2:4000"), listen(t, l.outer, "198.18.1.2:5000")
	first := time.Now()
	send(t, inside, netip.AddrPortFrom(outerAddress, 5000), 100)
	receive(t, outside)

	const quiet = 200 * time.Millisecond
	known := make(chan struct{})
	stop := make(chan struct{})
	go func() { // packets of a known flow do not disturb the rest
		defer close(known)
		for tick := time.Tick(5 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick:
				inside.WriteToUDPAddrPort(make([]byte, 100), netip.AddrPortFrom(outerAddress, 5000))
			}
		}
	}()
	must(t, r.Rest(timeout(t), quiet))
	if took := time.Since(first); took < quiet {
		t.Errorf("rest after %v, though a new flow came less than %v before", took, quiet)
	}
	close(stop)
	<-known

	send(t, inside, netip.AddrPortFrom(outerAddress, 9999), 10)
	busy := errors.New("busy for too long")
	var port uint16 = 10000
	for again := true; again; {
		ctx, cancel := context.WithCancelCause(timeout(t))
		rested := make(chan error, 1)
		go func() { rested <- r.Rest(ctx, quiet) }()
		begin, last := time.Now(), time.Now()
		var gap time.Duration // the longest without a new flow
		for ; time.Since(begin) < quiet+quiet/2; port++ {
			gap, last = max(gap, time.Since(last)), time.Now()
			send(t, inside, netip.AddrPortFrom(outerAddress, port), 10)
			must(t, r.Sync(timeout(t)))
		}
		cancel(busy)
		err := <-rested
		gap = max(gap, time.Since(last))
		// Where the machine has held up this loop, there was rest.
		again = err == nil && gap >= quiet
		if !again && (!errors.Is(err, busy) || !strings.Contains(err.Error(), "198.18.1.2:10")) {
			t.Errorf("with new flows all the time, %v apart at most, Rest gives %v", gap, err)
		}
	}
}

// TestBound writes more than is allowed: what is there must be readable, and
// the losses must say that it isn't all.
func TestBound(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	writeWorld(t, dir)
	config := l.config(dir)
	config.MaxBytes = 20_000
	r, err := Start(timeout(t), config)
	must(t, err)
	inside, outside := listen(t, l.inner, "10.0.1.2:4000"), listen(t, l.outer, "198.18.1.2:5000")
	for range 50 {
		send(t, inside, netip.AddrPortFrom(outerAddress, 5000), 1000)
		receive(t, outside)
	}
	losses, err := r.Close()
	must(t, err)
	if !losses.Bounded {
		t.Error("the losses do not say that the bound was reached")
	}
	info, err := os.Stat(filepath.Join(dir, evidence.CaptureFile))
	must(t, err)
	if info.Size() > 22_000 {
		t.Errorf("capture of %d bytes with a bound of %d", info.Size(), config.MaxBytes)
	}
	ev, err := evidence.Read(dir)
	must(t, err)
	if len(ev.Losses.Reasons()) == 0 {
		t.Error("evidence without a reason for doubt")
	}
}

// TestOverflowIsDoubt records through a ring of one block: what that lost is in
// the files, and a reason for doubt to whoever reads them.
func TestOverflowIsDoubt(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	writeWorld(t, dir)
	config := l.config(dir)
	config.RingBytes = 1
	r, err := Start(timeout(t), config)
	must(t, err)
	inside := listen(t, l.inner, "10.0.1.2:4000")
	listen(t, l.outer, "198.18.1.2:5000")
	// Ten times what a block holds, in much less than the reader's interval.
	for range 10 * packet.BlockBytes / 1400 {
		send(t, inside, netip.AddrPortFrom(outerAddress, 5000), 1400)
	}
	losses, err := r.Close()
	must(t, err)
	for _, tap := range losses.Taps {
		if tap.Dropped == 0 || tap.Received <= tap.Dropped {
			t.Errorf("%s: %d of %d packets dropped, want some, not all", tap.Name, tap.Dropped, tap.Received)
		}
	}
	ev, err := evidence.Read(dir)
	must(t, err)
	want := fmt.Sprintf("the capture at inner/eth0 lost %d of %d packets", losses.Taps[0].Dropped, losses.Taps[0].Received)
	if !slices.Contains(ev.Losses.Reasons(), want) {
		t.Errorf("reasons for doubt: %q, want %q among them", ev.Losses.Reasons(), want)
	}
}

// TestTapThatGoesAway removes an interface under its tap: what came there later,
// if anything did, nobody has seen.
func TestTapThatGoesAway(t *testing.T) {
	l := newLab(t)
	r, err := Start(timeout(t), l.config(t.TempDir()))
	must(t, err)
	handle, err := netlink.NewHandleAt(netns.NsHandle(l.outer.FD()))
	must(t, err)
	defer handle.Close()
	link, err := handle.LinkByName("eth0")
	must(t, err)
	must(t, handle.LinkDel(link)) // and so its other end, the router's wan
	losses, err := r.Close()
	must(t, err)
	want := []string{"outer/eth0: packet socket: network is down", "router/wan: packet socket: network is down"}
	if got := losses.Reasons(); !slices.Equal(got, want) {
		t.Errorf("reasons for doubt: %q, want %q", got, want)
	}
}

func TestStartUndoesItself(t *testing.T) {
	l := newLab(t)
	config := l.config(t.TempDir())
	config.Taps = append(config.Taps, Tap{"inner/eth9", l.inner, "eth9"})
	open := descriptors(t)
	if _, err := Start(timeout(t), config); err == nil || !strings.Contains(err.Error(), "inner/eth9") {
		t.Errorf("a tap that is not there gives %v", err)
	}
	if now := descriptors(t); now > open { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open, %d before", now, open)
	}
	config = l.config(t.TempDir())
	config.Routers[0].Counters = func() (map[string]uint64, error) { return nil, fmt.Errorf("no counters") }
	if _, err := Start(timeout(t), config); err == nil || !strings.Contains(err.Error(), "no counters") {
		t.Errorf("counters that cannot be read give %v", err)
	}
	if now := descriptors(t); now > open { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open, %d before", now, open)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
