package capture

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/topo/ns"
)

// The lab of the forwarding benchmarks, with six taps as a run would set them:
//
//	a --- [home-a] --- internet --- [home-b] --- b
//	 eth0  lan  wan                 wan  lan  eth0
//
// Both boxes track connections and stop nothing.
const forwarding = `
topology:
  middleboxes: {home-a: {preset: open}, home-b: {preset: open}}
  hosts: {a: {behind: home-a}, b: {behind: home-b}}
`

// path is a lab with a flow of the 2004 load's datagrams, of 67 bytes, from a to
// b. Nobody reads them at b, where they are counted at the interface.
type path struct {
	*internet.Internet
	from int   // a's socket
	all  []Tap // six
	wan  []Tap // the two on the internet's side of the boxes
}

func newPath(b *testing.B) *path {
	b.Helper()
	newLab(b) // skips where there is no right to make namespaces
	s, err := scenario.Parse("forwarding.yaml", []byte(forwarding))
	must(b, err)
	i, err := internet.Up(b.Context(), s.Topology)
	must(b, err)
	b.Cleanup(func() { must(b, i.Close()) })
	p := &path{Internet: i}
	for _, name := range i.Names() {
		for _, device := range i.Interfaces(name) {
			tap := Tap{Name: name + "/" + device, Namespace: i.Namespace(name), Interface: device}
			p.all = append(p.all, tap)
			if device == "wan" {
				p.wan = append(p.wan, tap)
			}
		}
	}
	if len(p.all) != 6 || len(p.wan) != 2 {
		b.Fatalf("%d taps, %d of them on a WAN; expected 6 and 2", len(p.all), len(p.wan))
	}
	ends := make(map[string]netip.Addr)
	for _, h := range i.Plan.Hosts {
		ends[h.Name] = h.Addrs[0]
	}
	to := &unix.SockaddrInet4{Addr: ends["b"].As4(), Port: 5000}
	bound := plainSocket(b, i.Namespace("b"))
	must(b, unix.Bind(bound, to))
	p.from = plainSocket(b, i.Namespace("a"))
	must(b, unix.Connect(p.from, to))
	return p
}

// plainSocket makes a UDP socket that the Go runtime doesn't know: one that it
// polls would wake a thread of this process for each packet sent or received,
// which is dearer than a tap, and only while some thread waits.
func plainSocket(b *testing.B, namespace *ns.Handle) (fd int) {
	b.Helper()
	must(b, namespace.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	b.Cleanup(func() { must(b, unix.Close(fd)) })
	return fd
}

// arrived is how many packets have come to b.
func (p *path) arrived(b *testing.B) int {
	b.Helper()
	var count int
	must(b, p.Namespace("b").Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		_, line, _ := strings.Cut(string(table), "eth0:")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return fmt.Errorf("no eth0 in %q", table)
		}
		count, err = strconv.Atoi(fields[1]) // bytes, packets, …
		return err
	}))
	return count
}

// flow is what some time of traffic came to.
type flow struct {
	sent, arrived, lost int
	took                time.Duration
	sending, reading    time.Duration // of processors: the sending thread, all else of this process
}

// rate is packets that arrived in a second.
func (f flow) rate() float64 { return float64(f.arrived) / f.took.Seconds() }

// perPacket is a time's share of one packet, in µs.
func (f flow) perPacket(d time.Duration) float64 { return float64(d) / 1e3 / float64(f.arrived) }

// drive sends for some time, as fast as one thread can or at a rate, while the
// taps record. Beginning and ending the recording is left out of what it takes.
func (p *path) drive(b *testing.B, taps []Tap, rate int, during time.Duration) (f flow) {
	b.Helper()
	var r *Recorder
	if len(taps) > 0 {
		var err error
		r, err = Start(b.Context(), Config{Dir: b.TempDir(), Taps: taps, MaxBytes: 1 << 40})
		must(b, err)
	}
	payload := make([]byte, 67)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, own := processorTime(), threadTime(b)
	before, start := p.arrived(b), time.Now()
	for ; f.took < during; f.took = time.Since(start) {
		due := f.sent + 50
		if rate > 0 {
			due = int(f.took.Seconds() * float64(rate))
		}
		if due <= f.sent {
			time.Sleep(200 * time.Microsecond) // the pace is what is measured
		}
		for ; f.sent < due; f.sent++ {
			if _, err := unix.Write(p.from, payload); err != nil {
				b.Fatal(err)
			}
		}
	}
	// A veth hands packets over before the call that sends them returns, so all
	// have arrived.
	f.sending = threadTime(b) - own
	f.arrived = p.arrived(b) - before
	if r != nil {
		must(b, r.Sync(b.Context()))
	}
	f.reading = processorTime() - all - (threadTime(b) - own)
	if r != nil {
		losses, err := r.Close()
		must(b, err)
		for _, tap := range losses.Taps {
			f.lost += int(tap.Dropped)
		}
	}
	return f
}

// BenchmarkForward compares how many packets a second are forwarded without
// taps, with the two on the WANs and with all six, one after the other in each
// of many short rounds, so that whatever else the machine does meets all alike.
// It gives medians over the rounds; a ratio is the median of the rounds' own.
//
// With a second processor to read on, what a tap costs the packets is what the
// kernel does for it on the sender's: see the processor times. Those marked send
// are of the sending thread, in which the kernel forwards too, those marked read
// of the recorder: what the rest of the process takes more than without taps,
// when its runtime watches over the sender alone.
func BenchmarkForward(b *testing.B) {
	const rounds, during = 20, 120 * time.Millisecond
	p := newPath(b)
	sets := []struct {
		name string
		taps []Tap
	}{{"0-taps", nil}, {"2-taps", p.wan}, {"6-taps", p.all}}
	for b.Loop() {
		flows := make([][]flow, len(sets))
		for range rounds {
			for n, set := range sets {
				flows[n] = append(flows[n], p.drive(b, set.taps, 0, during))
			}
		}
		lost := 0
		for n, set := range sets {
			report := func(unit string, of func(f, without flow) float64) {
				var values []float64
				for round, f := range flows[n] {
					values = append(values, of(f, flows[0][round]))
				}
				b.ReportMetric(median(values), set.name+unit)
			}
			report("/s", func(f, _ flow) float64 { return f.rate() })
			report("-send-µs/packet", func(f, _ flow) float64 { return f.perPacket(f.sending) })
			for _, f := range flows[n] {
				lost += f.lost
			}
			if n == 0 {
				continue
			}
			report("-read-µs/packet", func(f, without flow) float64 {
				return f.perPacket(f.reading) - without.perPacket(without.reading)
			})
			report("/0-taps", func(f, without flow) float64 { return f.rate() / without.rate() })
			report("/0-taps(send)", func(f, without flow) float64 {
				return without.perPacket(without.sending) / f.perPacket(f.sending)
			})
		}
		b.ReportMetric(float64(lost), "lost")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkForwardPaced sends 50,000 packets a second over six taps, and counts
// what those lost.
func BenchmarkForwardPaced(b *testing.B) {
	p := newPath(b)
	for b.Loop() {
		f := p.drive(b, p.all, 50_000, 3*time.Second)
		b.ReportMetric(float64(f.sent)/f.took.Seconds(), "sent/s")
		b.ReportMetric(f.rate(), "arrived/s")
		b.ReportMetric(float64(f.lost), "lost")
		b.ReportMetric(f.perPacket(f.sending), "send-µs/packet")
		b.ReportMetric(f.perPacket(f.reading), "read-µs/packet")
	}
	b.ReportMetric(0, "ns/op")
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_THREAD, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
