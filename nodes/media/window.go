package media

// windowSize is the packets that the replay window remembers: about 15 s of
// the 2004 load, so that what a relay over TCP delivers late still counts.
const windowSize = 1024

// window is a replay window (RFC 3711 §3.3.2) in the shape that pion/srtp
// wants. That shape answers each check with a function that commits it; this
// one keeps a single such function and the number it speaks of, so that
// nothing is allocated for a packet. Like an SRTP context it must not be used
// concurrently.
type window struct {
	seen    [windowSize / 64]uint64 // bit n%windowSize: index n was accepted
	high    uint64                  // highest index accepted
	any     bool
	pending uint64
	commit  func() bool
}

func newWindow() *window {
	w := &window{}
	w.commit = w.accept
	return w
}

// Check says whether the packet of this index is new, without accepting it.
func (w *window) Check(index uint64) (accept func() bool, ok bool) {
	if w.any && index <= w.high {
		if w.high-index >= windowSize || w.seen[index%windowSize/64]&(1<<(index%64)) != 0 {
			return w.commit, false
		}
	}
	w.pending = index
	return w.commit, true
}

// accept remembers the index last checked and says whether it is the newest.
func (w *window) accept() bool {
	index := w.pending
	newest := !w.any || index > w.high
	if newest {
		w.advance(index)
	}
	w.seen[index%windowSize/64] |= 1 << (index % 64)
	return newest
}

// advance moves the window's upper edge and forgets what falls out of it.
func (w *window) advance(index uint64) {
	if !w.any || index-w.high >= windowSize {
		w.seen = [windowSize / 64]uint64{}
	} else {
		for n := w.high + 1; n <= index; n++ {
			w.seen[n%windowSize/64] &^= 1 << (n % 64)
		}
	}
	w.any, w.high = true, index
}
