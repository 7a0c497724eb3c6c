package capture

import (
	"slices"
	"sync"
	"time"

	"gauntlet/lab/evidence"
)

// Watcher is told of a packet that a tap saw at a time. It runs where all
// packets are read, and must not block.
type Watcher func(tap string, at time.Time, p evidence.Packet)

// watchers are those who are told of packets while the capture goes on.
type watchers struct {
	mu  sync.Mutex
	all []*Watcher
}

// Watch has f told of every packet from now on, at most readInterval and
// BlockTimeout after it was captured. Once stop returns, f is not called again.
func (r *Recorder) Watch(f Watcher) (stop func()) {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, &f)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = slices.DeleteFunc(w.all, func(g *Watcher) bool { return g == &f })
	}
}

func (w *watchers) tell(tap string, at time.Time, p evidence.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.all {
		(*f)(tap, at, p)
	}
}
