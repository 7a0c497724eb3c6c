package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/topo/packet"
)

// maxProblems bounds the sentences that are kept.
const maxProblems = 100

// store writes the files and keeps to the bound over all of them. The packet
// methods belong to the reader's goroutine, the others to anybody.
type store struct {
	left    atomic.Int64
	bounded atomic.Bool

	written     []uint64 // packets, by tap
	capture     *evidence.CaptureWriter
	captureFile *os.File
	spool       *spool // in front of it

	mu       sync.Mutex // guards what follows
	lines    map[string]*lines
	problems []string
}

// lines is a file of one JSON value a line.
type lines struct {
	file *os.File
	w    *bufio.Writer
}

// openStore makes the files. It fails if one is there already.
func openStore(dir string, taps []string, bound int64) (*store, error) {
	s := &store{lines: make(map[string]*lines), written: make([]uint64, len(taps))}
	s.left.Store(bound)
	var err error
	if s.captureFile, err = create(dir, evidence.CaptureFile); err != nil {
		return nil, err
	}
	s.spool = newSpool(s.captureFile)
	if s.capture, err = evidence.NewCaptureWriter(s.spool, taps); err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, name := range []string{evidence.ConntrackFile, evidence.DropsFile} {
		file, err := create(dir, name)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.lines[name] = &lines{file: file, w: bufio.NewWriter(file)}
	}
	return s, nil
}

func create(dir, name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make evidence file: %w", err)
	}
	return file, nil
}

// take says whether n more bytes may be written. Once one does not fit, none
// does, so that what is there has no hole.
func (s *store) take(n int) bool {
	if s.bounded.Load() {
		return false
	}
	if s.left.Add(-int64(n)) < 0 {
		s.bounded.Store(true)
		return false
	}
	return true
}

// packetOverhead is what pcapng adds to a packet: 32 bytes of block and up to
// 3 of padding.
const packetOverhead = 35

func (s *store) packet(index int, p packet.Packet) {
	if !s.take(len(p.Data) + packetOverhead) {
		return
	}
	if err := s.capture.Packet(index, p.At, p.Length, p.Data); err != nil {
		s.problem(err)
		s.bounded.Store(true)
		return
	}
	s.written[index]++
}

// statistics adds a tap's counters to the capture; the reader must have ended.
func (s *store) statistics(index int, received, dropped uint64) {
	if err := s.capture.Statistics(index, time.Now(), received, dropped); err != nil {
		s.problem(err)
	}
}

// flush hands the packets on to the file, and closes a channel when they are
// there.
func (s *store) flush(written chan<- struct{}) {
	if err := s.capture.Flush(); err != nil {
		s.problem(err)
	}
	s.spool.mark(written)
}

// line appends a value to one of the files of lines.
func (s *store) line(name string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		s.problem(fmt.Errorf("encode line of %s: %w", name, err))
		return
	}
	data = append(data, '\n')
	if !s.take(len(data)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.lines[name].w.Write(data); err != nil {
		s.note(fmt.Errorf("write %s: %w", name, err))
	}
}

// flushLines hands the lines on to their files.
func (s *store) flushLines() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, l := range s.lines {
		if err := l.w.Flush(); err != nil {
			s.note(fmt.Errorf("write %s: %w", name, err))
		}
	}
}

// problem keeps what went wrong, for the losses.
func (s *store) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(err)
}

func (s *store) note(err error) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, err.Error())
	}
}

func (s *store) result() (bounded bool, problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bounded.Load(), s.problems
}

func (s *store) close() error {
	var errs []error
	if s.capture != nil {
		errs = append(errs, s.capture.Flush())
	}
	if s.spool != nil {
		errs = append(errs, s.spool.close())
	}
	errs = append(errs, s.captureFile.Close())
	for _, l := range s.lines {
		errs = append(errs, l.w.Flush(), l.file.Close())
	}
	return errors.Join(errs...)
}
