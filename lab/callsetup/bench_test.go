package callsetup

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// bound is what a call may take from the callee's accepting to the first media
// packet: two and a half round trips, one of them the answer's by way of a
// supernode, and some computing.
func bound(rtt time.Duration) time.Duration { return rtt*5/2 + 20*time.Millisecond }

// BenchmarkSetUp is the time from accepting to the first media packet that is
// with the other end, by the reference overlay and by pion/ice in turn, in the
// same internet: medians, the longest, and the ratio of the medians. both is
// until each end has a packet of the other's; late counts the overlay's calls
// that take longer than the bound.
func BenchmarkSetUp(b *testing.B) {
	for _, rtt := range []time.Duration{0, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("rtt=%v", rtt), func(b *testing.B) {
			names, _ := overlayServers()
			i := up(b, rtt, append(names, stunHost)...)
			server := startSTUN(b, i)
			o := startOverlay(b, i)
			var ice, eager, first, both []time.Duration
			for b.Loop() {
				if err := o.call(b.Context()); err != nil {
					b.Fatal(err)
				}
				for _, by := range []struct {
					eager bool
					times *[]time.Duration
				}{{false, &ice}, {true, &eager}} {
					took, err := setUp(b.Context(), i, server, by.eager)
					if err != nil {
						b.Fatal(err)
					}
					*by.times = append(*by.times, took)
				}
			}
			all, err := o.measure()
			if err != nil {
				b.Fatal(err)
			}
			late := 0
			for _, w := range all {
				first, both = append(first, w.first), append(both, w.both)
				if w.first > bound(rtt) {
					late++
				}
			}
			b.Logf("overlay %v, both ways %v, pion/ice %v, eager %v", first, both, ice, eager)
			report := func(who string, times []time.Duration) time.Duration {
				slices.Sort(times)
				median := times[len(times)/2]
				b.ReportMetric(milliseconds(median), who+"-median-ms")
				b.ReportMetric(milliseconds(times[len(times)-1]), who+"-longest-ms")
				return median
			}
			ours := report("overlay", first)
			report("overlay-both", both)
			theirs := report("ice", ice)
			b.ReportMetric(milliseconds(bound(rtt)), "bound-ms")
			b.ReportMetric(float64(late), "late")
			b.ReportMetric(float64(ours)/float64(theirs), "overlay/ice")
			b.ReportMetric(float64(ours)/float64(report("eager", eager)), "overlay/eager")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
