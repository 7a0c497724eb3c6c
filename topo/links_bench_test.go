package topo

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"
)

// jittery is a link that only the pump serves, whatever the kernel has.
var jittery = Link{
	Up:   Shape{Delay: 25 * time.Millisecond, Jitter: time.Nanosecond},
	Down: Shape{Delay: 25 * time.Millisecond, Jitter: time.Nanosecond},
}

// ends builds two hosts, the first with a link, and a socket on each.
func ends(b *testing.B, l Link) (n *Network, from, to *net.UDPConn) {
	b.Helper()
	plan, err := NewPlan(Description{Hosts: []HostDescription{{Name: "a", Link: l}, {Name: "b"}}})
	if err != nil {
		b.Fatal(err)
	}
	n = stand(b, plan)
	return n, listen(b, n.Namespace("a"), plan.Hosts[0].Addrs[0]), listen(b, n.Namespace("b"), plan.Hosts[1].Addrs[0])
}

// BenchmarkLinkDelay measures how much later than its delay a datagram arrives,
// in µs, from the call that sends to the return of the one that receives; beside
// it the same without a link.
func BenchmarkLinkDelay(b *testing.B) {
	for _, c := range []struct {
		name string
		link Link
	}{{"none", Link{}}, {"25ms", jittery}} {
		b.Run(c.name, func(b *testing.B) {
			_, from, to := ends(b, c.link)
			var over []time.Duration
			buf := make([]byte, 64)
			for b.Loop() {
				start := time.Now()
				if _, err := from.WriteToUDPAddrPort(make([]byte, 67), address4(to)); err != nil {
					b.Fatal(err)
				}
				if _, _, err := to.ReadFromUDPAddrPort(buf); err != nil {
					b.Fatal(err)
				}
				over = append(over, time.Since(start)-c.link.Up.Delay)
			}
			slices.Sort(over)
			b.ReportMetric(float64(over[len(over)/2].Nanoseconds())/1e3, "median-µs")
			b.ReportMetric(float64(over[len(over)*99/100].Nanoseconds())/1e3, "p99-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLinkFrames measures how many frames of 67 bytes of payload one link
// moves in a second, sent as fast as one thread can, and at 50,000/s, and which
// share of them the pump was too slow for.
func BenchmarkLinkFrames(b *testing.B) {
	for _, c := range []struct {
		name string
		rate float64
	}{{"flood", 0}, {"50000", 50_000}} {
		b.Run(c.name, func(b *testing.B) {
			n, from, to := ends(b, jittery)
			payload := binary.BigEndian.AppendUint64(make([]byte, 59), 0)
			sent := 0
			used, start := processorTime(b), time.Now()
			for b.Loop() {
				for c.rate > 0 && time.Since(start).Seconds()*c.rate < float64(sent) {
					time.Sleep(100 * time.Microsecond) // the pace is what is measured
				}
				if _, err := from.WriteToUDPAddrPort(payload, address4(to)); err != nil {
					b.Fatal(err)
				}
				sent++
			}
			took := time.Since(start)
			reports, err := n.Links()
			if err != nil {
				b.Fatal(err)
			}
			up := reports[0].Up
			b.ReportMetric(float64(sent)/took.Seconds(), "sent/s")
			b.ReportMetric(float64(up.Passed)/took.Seconds(), "passed/s")
			b.ReportMetric(100*float64(up.Unread+up.Overflow+up.Refused)/float64(sent), "%lost")
			b.ReportMetric(float64(processorTime(b)-used)/1e3/float64(sent), "cpu-µs/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkBuildLinks measures what a link with a delay costs when it is built.
func BenchmarkBuildLinks(b *testing.B) {
	for _, c := range []struct {
		name string
		link Link
	}{{"plain", Link{}}, {"delayed", jittery}} {
		b.Run(c.name, func(b *testing.B) {
			const hosts = 20
			d := Description{}
			for i := range hosts {
				d.Hosts = append(d.Hosts, HostDescription{Name: string(rune('a' + i)), Link: c.link})
			}
			plan, err := NewPlan(d)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				n, err := Build(b.Context(), plan)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := n.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(b.N*hosts), "ms/host")
		})
	}
}
