package capture

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// BenchmarkIdle measures the processor time that a recorder of 20 taps takes
// while nothing happens, as a share of one core.
func BenchmarkIdle(b *testing.B) {
	l := newLab(b)
	config := l.config(b.TempDir())
	for len(config.Taps) < 20 {
		config.Taps = append(config.Taps, config.Taps[0])
	}
	r, err := Start(context.Background(), config)
	must(b, err)
	used, begin := processorTime(), time.Now()
	b.ResetTimer()
	for range b.N {
		time.Sleep(100 * time.Millisecond)
	}
	b.ReportMetric(100*float64(processorTime()-used)/float64(time.Since(begin)), "%core")
	_, err = r.Close()
	must(b, err)
}

// BenchmarkPacket measures the processor time that recording a packet of the
// 2004 load takes at four taps, sending it included.
func BenchmarkPacket(b *testing.B) {
	l := newLab(b)
	config := l.config(b.TempDir())
	config.MaxBytes = 1 << 40
	r, err := Start(context.Background(), config)
	must(b, err)
	inside := listen(b, l.inner, "10.0.1.2:4000")
	listen(b, l.outer, "198.18.1.2:5000")
	to := netip.AddrPortFrom(outerAddress, 5000)
	used := processorTime()
	b.ResetTimer()
	for range b.N {
		send(b, inside, to, 67)
	}
	must(b, r.Sync(context.Background()))
	b.ReportMetric(float64(processorTime()-used)/float64(b.N), "cpu-ns/packet")
	losses, err := r.Close()
	must(b, err)
	var lost uint64
	for _, tap := range losses.Taps {
		lost += tap.Dropped
	}
	b.ReportMetric(float64(lost)/float64(b.N), "lost/packet")
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkStart measures what it costs to begin and end a recording at 20 taps.
func BenchmarkStart(b *testing.B) {
	l := newLab(b)
	for b.Loop() {
		config := l.config(b.TempDir())
		for len(config.Taps) < 20 {
			config.Taps = append(config.Taps, config.Taps[0])
		}
		r, err := Start(context.Background(), config)
		must(b, err)
		_, err = r.Close()
		must(b, err)
	}
}
