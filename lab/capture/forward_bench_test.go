package capture

import (
	"fmt"
	"net"
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
	from *net.UDPConn
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
	listen(b, i.Namespace("b"), netip.AddrPortFrom(ends["b"], 5000).String())
	must(b, i.Namespace("a").Do(func() (err error) {
		p.from, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ends["b"], 5000)))
		return err
	}))
	b.Cleanup(func() { must(b, p.from.Close()) })
	return p
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

// flow is what some seconds of traffic came to.
type flow struct {
	sent, arrived, lost int
	took, cpu           time.Duration // cpu is the sending thread's
}

// rate is packets that arrived in a second.
func (f flow) rate() float64 { return float64(f.arrived) / f.took.Seconds() }

// drive sends for some time, as fast as one thread can or at a rate, while the
// taps record.
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
	used := threadTime(b)
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
			if _, err := p.from.Write(payload); err != nil {
				b.Fatal(err)
			}
		}
	}
	// A veth hands packets over before the call that sends them returns, so all
	// have arrived.
	f.cpu = threadTime(b) - used
	f.arrived = p.arrived(b) - before
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
// of several rounds, so that whatever else the machine does meets all alike. It
// gives medians over the rounds; a ratio is the median of the rounds' own. Those
// marked cpu are of packets to a second of the sending thread's processor time,
// in which the kernel forwards: what they would be with processors to spare.
func BenchmarkForward(b *testing.B) {
	const rounds, during = 9, 300 * time.Millisecond
	p := newPath(b)
	for b.Loop() {
		var rates [3][]float64
		var ratios, costs [3][]float64
		lost := 0
		for range rounds {
			var f [3]flow
			for n, taps := range [][]Tap{nil, p.wan, p.all} {
				f[n] = p.drive(b, taps, 0, during)
				rates[n] = append(rates[n], f[n].rate())
				ratios[n] = append(ratios[n], f[n].rate()/f[0].rate())
				costs[n] = append(costs[n], float64(f[0].cpu)/float64(f[0].arrived)/(float64(f[n].cpu)/float64(f[n].arrived)))
				lost += f[n].lost
			}
		}
		for n, name := range []string{"0-taps", "2-taps", "6-taps"} {
			b.ReportMetric(median(rates[n]), name+"/s")
			if n > 0 {
				b.ReportMetric(median(ratios[n]), name+"/0-taps")
				b.ReportMetric(median(costs[n]), name+"/0-taps(cpu)")
			}
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
		used := processorTime()
		f := p.drive(b, p.all, 50_000, 3*time.Second)
		b.ReportMetric(float64(f.sent)/f.took.Seconds(), "sent/s")
		b.ReportMetric(f.rate(), "arrived/s")
		b.ReportMetric(float64(f.lost), "lost")
		b.ReportMetric(float64(processorTime()-used)/1e3/float64(f.sent), "cpu-µs/packet")
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
