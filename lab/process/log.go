package process

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

// Bounds of what is kept of a node's stderr, in bytes.
const (
	maxLog  = 4 << 20
	maxTail = 8 << 10
)

// Log keeps what a node writes to stderr: the beginning in a file, up to a
// bound, and the end in memory.
type Log struct {
	mu      sync.Mutex
	file    io.WriteCloser
	written int
	tail    []byte
}

// NewLog creates the file of a log.
func NewLog(file string) (*Log, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	return &Log{file: f}, nil
}

// Close closes the file; what is written from then on is only kept in memory.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = maxLog
	return l.file.Close()
}

// Write takes what the node wrote. It never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxLog - l.written; room > 0 {
		n, _ := l.file.Write(p[:min(len(p), room)])
		l.written += n
	}
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - maxTail; over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	return len(p), nil
}

// last returns the last n lines.
func (l *Log) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := string(bytes.TrimRight(l.tail, "\n"))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}
