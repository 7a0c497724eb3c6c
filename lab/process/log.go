package process

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// Bounds of what is kept of a node's stderr, in bytes.
const (
	maxLog  = 4 << 20
	maxTail = 8 << 10
)

// log keeps what a node writes to stderr: the beginning in a file, up to a
// bound, and the end in memory.
type log struct {
	mu      sync.Mutex
	file    io.WriteCloser
	written int
	tail    []byte
}

func (l *log) Write(p []byte) (int, error) {
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
func (l *log) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := string(bytes.TrimRight(l.tail, "\n"))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}
