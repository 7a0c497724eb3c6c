package search

// State of a datagram of a greeting.
const (
	waiting  = iota // to be sent, again perhaps
	underway        // sent, not acknowledged
	arrived         // acknowledged
)

// window says which datagrams of a greeting to send: in order, no more than
// so many under way, those that were lost first. It knows no clock.
type window struct {
	state []uint8
	limit int
	away  int // datagrams under way
	acked int
}

func newWindow(datagrams, limit int) *window {
	return &window{state: make([]uint8, datagrams), limit: limit}
}

// next returns the datagrams to send now and takes them as sent.
func (w *window) next() []int {
	var now []int
	for i := 0; i < len(w.state) && w.away < w.limit; i++ {
		if w.state[i] == waiting {
			w.state[i] = underway
			w.away++
			now = append(now, i)
		}
	}
	return now
}

// acknowledge takes a bitmap of what arrived and says whether that is news.
func (w *window) acknowledge(have []byte) (news bool) {
	for i := range w.state {
		if w.state[i] == arrived || i/8 >= len(have) || have[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if w.state[i] == underway {
			w.away--
		}
		w.state[i] = arrived
		w.acked++
		news = true
	}
	return news
}

// lost takes all that is under way as lost. When everything was acknowledged
// and still no end has come, the last one goes again, to be told the end.
func (w *window) lost() {
	for i := range w.state {
		if w.state[i] == underway {
			w.state[i] = waiting
		}
	}
	w.away = 0
	if w.acked == len(w.state) {
		w.state[len(w.state)-1] = waiting
		w.acked--
	}
}
