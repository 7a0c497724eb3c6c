package search

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestWindowSendsInOrderAndNoMoreThanItsLimit(t *testing.T) {
	w := newWindow(10, 4)
	if got := w.next(); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("first %v", got)
	}
	if got := w.next(); got != nil {
		t.Errorf("then %v at once", got)
	}
	if !w.acknowledge([]byte{0b0101}) || w.acknowledge([]byte{0b0101}) {
		t.Error("an acknowledgement is news once")
	}
	if got := w.next(); !slices.Equal(got, []int{4, 5}) {
		t.Errorf("after two of them %v", got)
	}
	w.lost()
	if got := w.next(); !slices.Equal(got, []int{1, 3, 4, 5}) {
		t.Errorf("after the loss %v", got)
	}
}

// TestWindowDeliversAllUnderLoss plays a lossy path in both directions.
func TestWindowDeliversAllUnderLoss(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 80).Draw(t, "datagrams")
		limit := rapid.IntRange(1, 20).Draw(t, "window")
		loss := rapid.Float64Range(0, 0.7).Draw(t, "loss")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w := newWindow(total, limit)
		have := make([]byte, (total+7)/8)
		missing := total
		for turn := 0; missing > 0 || w.acked < total; turn++ {
			if turn > 100000 {
				t.Fatalf("%d of %d are missing, %d acknowledged", missing, total, w.acked)
			}
			for _, i := range w.next() {
				if random.Float64() < loss {
					continue
				}
				if have[i/8]&(1<<(i%8)) == 0 {
					have[i/8] |= 1 << (i % 8)
					missing--
				}
				if random.Float64() >= loss {
					w.acknowledge(have)
				}
			}
			if w.away > limit {
				t.Fatalf("%d under way, limit %d", w.away, limit)
			}
			w.lost()
			if missing == 0 && w.acked >= total-1 {
				return // the last one goes on until the end is told
			}
		}
	})
}

func TestGreetingIsPutTogether(t *testing.T) {
	size := 3*chunkSize + 5
	g := &coming{data: make([]byte, size), have: make([]byte, 1), missing: 4}
	for _, bad := range []struct {
		index int
		data  []byte
	}{{-1, make([]byte, chunkSize)}, {0, nil}, {0, make([]byte, chunkSize+1)}, {3, make([]byte, chunkSize)},
		{4, make([]byte, 5)}, {1 << 40, make([]byte, chunkSize)}} {
		if _, err := g.take(bad.index, bad.data); err == nil {
			t.Errorf("%d bytes at %d are taken", len(bad.data), bad.index)
		}
	}
	for _, i := range []int{2, 0, 3, 1} {
		data := make([]byte, min(chunkSize, size-i*chunkSize))
		data[0] = byte(i + 1)
		report, err := g.take(i, data)
		if err != nil || report != (i == 1) {
			t.Errorf("chunk %d: %v, %v", i, report, err)
		}
		if report, err := g.take(i, data); err != nil || !report {
			t.Errorf("chunk %d again: %v, %v", i, report, err)
		}
	}
	for i := range 4 {
		if g.data[i*chunkSize] != byte(i+1) {
			t.Errorf("chunk %d is elsewhere", i)
		}
	}
}
