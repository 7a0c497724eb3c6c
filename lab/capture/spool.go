package capture

import (
	"io"
	"sync"
)

// A spool stands between the goroutine that empties the rings and the file: a
// disk that makes a write wait doesn't keep the rings from being read, as long
// as what it has still to take fits into memory.
type spool struct {
	blocks chan block
	free   chan []byte
	done   chan struct{}

	mu  sync.Mutex // guards err
	err error
}

// block is bytes to be written, or the request to say when all before are.
type block struct {
	data    []byte
	written chan<- struct{}
}

// The memory of a spool: 32 MiB, some 200,000 packets of the 2004 load. It is
// taken only as far as it is needed.
const (
	spoolBlockBytes = 256 << 10
	spoolBlocks     = 128
)

// newSpool starts to write into w. The spool must be closed.
func newSpool(w io.Writer) *spool {
	s := &spool{
		blocks: make(chan block, spoolBlocks),
		free:   make(chan []byte, spoolBlocks),
		done:   make(chan struct{}),
	}
	go s.run(w)
	return s
}

func (s *spool) run(w io.Writer) {
	defer close(s.done)
	failed := false
	for b := range s.blocks {
		if b.written != nil {
			close(b.written)
			continue
		}
		if !failed {
			if _, err := w.Write(b.data); err != nil {
				failed = true
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
			}
		}
		select {
		case s.free <- b.data[:0]:
		default:
		}
	}
}

// Write takes bytes to be written later, and waits only while memory is full. It
// returns the error of an earlier write, if there was one.
func (s *spool) Write(data []byte) (int, error) {
	var buffer []byte
	select {
	case buffer = <-s.free:
	default:
		buffer = make([]byte, 0, max(spoolBlockBytes, len(data)))
	}
	s.blocks <- block{data: append(buffer, data...)}
	return len(data), s.failure()
}

// mark closes a channel when all that was taken before is written, or has
// failed.
func (s *spool) mark(written chan<- struct{}) { s.blocks <- block{written: written} }

func (s *spool) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close waits until all is written. It returns the first error of any write.
func (s *spool) close() error {
	close(s.blocks)
	<-s.done
	return s.failure()
}
