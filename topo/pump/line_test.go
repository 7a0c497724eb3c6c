package pump

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// take pops everything that may leave by a time.
func take(l *Line, now time.Duration) (frames [][]byte) {
	for {
		due := l.Due(now, make([][]byte, 0, 8))
		for _, f := range due {
			frames = append(frames, slices.Clone(f))
		}
		l.Pop(len(due))
		if len(due) == 0 {
			return frames
		}
	}
}

func numbered(n int, length int) []byte {
	f := make([]byte, length)
	binary.BigEndian.PutUint32(f, uint32(n))
	return f
}

func TestLineDelays(t *testing.T) {
	l := NewLine(Impairment{Delay: 25 * time.Millisecond}, 1, 2)
	if _, ok := l.Next(); ok {
		t.Error("an empty line has a next frame")
	}
	l.Push(time.Second, []byte("one"), false)
	l.Push(time.Second+time.Millisecond, []byte("two"), false)
	if at, ok := l.Next(); !ok || at != 1025*time.Millisecond {
		t.Errorf("next: %v, %v; want 1.025s", at, ok)
	}
	for _, c := range []struct {
		now  time.Duration
		want string
	}{{1025*time.Millisecond - 1, "[]"}, {1025 * time.Millisecond, "[one]"}, {1026*time.Millisecond - 1, "[]"}, {2 * time.Second, "[two]"}} {
		if got := fmt.Sprintf("%s", take(l, c.now)); got != c.want {
			t.Errorf("at %v: %s, want %s", c.now, got, c.want)
		}
	}
}

// A calm line adds no delay, but nothing overtakes what is on it.
func TestLineCalm(t *testing.T) {
	l := NewLine(Impairment{Delay: time.Second, Loss: 1}, 1, 2)
	l.Loss = 0
	l.Push(0, []byte("late"), false)
	l.Loss = 1
	l.Push(10*time.Millisecond, []byte("calm"), true)
	if got := take(l, time.Second-1); len(got) != 0 {
		t.Errorf("%s overtook", got)
	}
	if got := fmt.Sprintf("%s", take(l, time.Second)); got != "[late calm]" {
		t.Errorf("%s, want both", got)
	}
	l.Push(2*time.Second, []byte("calm"), true)
	if at, ok := l.Next(); !ok || at != 2*time.Second {
		t.Errorf("next: %v, %v; want it at once", at, ok)
	}
}

// Frames of every length leave in order, whole, none before its own time, the
// delays spread over the whole of delay ± jitter.
func TestLineKeepsOrderUnderJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delay := time.Duration(rapid.IntRange(1, 100).Draw(t, "delay")) * time.Millisecond
		jitter := time.Duration(rapid.Float64Range(0, 1).Draw(t, "jitter") * float64(delay))
		l := NewLine(Impairment{Delay: delay, Jitter: jitter}, rapid.Uint64().Draw(t, "seed"), 0)
		var sent []time.Duration
		var lengths []int
		now, left := time.Duration(0), 0
		check := func() {
			for _, f := range take(l, now) {
				n := int(binary.BigEndian.Uint32(f))
				if n != left || len(f) != lengths[n] {
					t.Fatalf("frame %d of %d bytes, want %d", n, len(f), left)
				}
				if now < sent[n]+delay-jitter {
					t.Fatalf("frame %d of %v left at %v", n, sent[n], now)
				}
				left++
			}
		}
		for n := range rapid.IntRange(1, 3000).Draw(t, "frames") {
			now += time.Duration(rapid.IntRange(0, 2000).Draw(t, "gap")) * time.Microsecond
			lengths = append(lengths, rapid.IntRange(14, 1514).Draw(t, "length"))
			sent = append(sent, now)
			l.Push(now, numbered(n, lengths[n]), false)
			check()
		}
		now += delay + jitter
		check()
		if left != len(sent) || len(l.chunks) != 0 {
			t.Errorf("%d of %d frames left; %d chunks are in use", left, len(sent), len(l.chunks))
		}
	})
}

// Far apart, so that none waits for the one before it, frames take delays spread
// evenly over the range.
func TestLineJitterIsUniform(t *testing.T) {
	const delay, jitter, frames = 20 * time.Millisecond, 5 * time.Millisecond, 10_000
	l := NewLine(Impairment{Delay: delay, Jitter: jitter}, 7, 8)
	var bins [10]int
	for n := range frames {
		sent := time.Duration(n) * time.Second
		l.Push(sent, numbered(n, 60), false)
		at, _ := l.Next()
		varies := at - sent - delay
		if varies < -jitter || varies > jitter {
			t.Fatalf("frame %d: %v from the mean", n, varies)
		}
		bins[min(9, int(10*(varies+jitter)/(2*jitter)))]++
		l.Pop(1)
	}
	for i, n := range bins { // five standard deviations of a binomial of p = 0.1
		if math.Abs(float64(n)-frames/10) > 5*math.Sqrt(frames*0.09) {
			t.Errorf("tenth %d of the range has %d of %d frames", i, n, frames)
		}
	}
}

// fates says which of some frames a line lets through.
func fates(l *Line, frames int) string {
	fates := make([]byte, frames)
	for n := range fates {
		fates[n] = '-'
		l.Push(0, numbered(n, 60), false)
	}
	for _, f := range take(l, time.Hour) {
		fates[binary.BigEndian.Uint32(f)] = 'x'
	}
	return string(fates)
}

func TestLineLoss(t *testing.T) {
	const frames, loss = 10_000, 0.02
	one := NewLine(Impairment{Loss: loss}, 1, 2)
	first := fates(one, frames)
	if got, bound := float64(one.Lost), 5*math.Sqrt(frames*loss*(1-loss)); math.Abs(got-frames*loss) > bound {
		t.Errorf("%v of %d lost, want %v ± %.0f", got, frames, frames*loss, bound)
	}
	if fates(NewLine(Impairment{Loss: loss}, 1, 2), frames) != first {
		t.Error("the same seed lost others")
	}
	if fates(NewLine(Impairment{Loss: loss, Delay: time.Millisecond, Jitter: time.Millisecond}, 1, 2), frames) != first {
		t.Error("the same seed with a delay lost others")
	}
	for _, seeds := range [][2]uint64{{2, 2}, {1, 3}} {
		if fates(NewLine(Impairment{Loss: loss}, seeds[0], seeds[1]), frames) == first {
			t.Errorf("seeds %v lost the same", seeds)
		}
	}
	if all := NewLine(Impairment{Loss: 1}, 1, 2); fates(all, 100) != fates(NewLine(Impairment{Loss: 1}, 3, 4), 100) || all.Lost != 100 {
		t.Errorf("%d of 100 lost, want all", all.Lost)
	}
}

// A full line drops what comes, counts it, and takes frames again when some
// have left. Its memory stays within MaxBytes.
func TestLineIsBounded(t *testing.T) {
	for _, length := range []int{60, 1514} {
		l := NewLine(Impairment{Delay: time.Second}, 1, 2)
		kept := 0
		for ; l.Overflow == 0; kept++ {
			l.Push(0, numbered(kept, length), false)
		}
		kept--
		size := 0
		for _, c := range l.chunks {
			size += cap(c.data) + 16*cap(c.records)
		}
		if size > MaxBytes || kept*(length+16) < MaxBytes/4*3 {
			t.Errorf("%d frames of %d bytes in %d bytes of %d", kept, length, size, MaxBytes)
		}
		if got := len(take(l, time.Second)); got != kept {
			t.Errorf("%d frames of %d came out", got, kept)
		}
		if len(l.spare) > spareChunks {
			t.Errorf("%d empty chunks are kept", len(l.spare))
		}
		l.Push(time.Second, numbered(0, length), false)
		if got := len(take(l, 2*time.Second)); got != 1 || l.Overflow != 1 {
			t.Errorf("after an overflow %d frames came out, %d overflowed", got, l.Overflow)
		}
	}
	if l := NewLine(Impairment{}, 1, 2); fates(l, 1) != "x" {
		t.Error("an empty line takes no frame")
	}
}

func BenchmarkLine(b *testing.B) {
	l := NewLine(Impairment{Delay: 25 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.01}, 1, 2)
	frame, due := make([]byte, 109), make([][]byte, 0, batch)
	b.ReportAllocs()
	for n := range b.N {
		now := time.Duration(n) * 20 * time.Microsecond
		l.Push(now, frame, false)
		l.Pop(len(l.Due(now, due)))
	}
}
