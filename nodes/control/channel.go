package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// lines frames messages one a line, each checked to be JSON and no longer
// than MaxLine: whatever reads it says which line of the peer was rubbish.
type lines struct {
	r *bufio.Reader

	mu sync.Mutex // one writer at a time; jrpc2 sends from several goroutines
	w  io.WriteCloser
}

func newLines(r io.Reader, w io.WriteCloser) *lines {
	return &lines{r: bufio.NewReaderSize(r, 64<<10), w: w}
}

func (l *lines) Send(msg []byte) error {
	if len(msg)+1 > MaxLine {
		return fmt.Errorf("message of %d bytes exceeds the %d of a line", len(msg), MaxLine)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(append(msg, '\n'))
	return err
}

func (l *lines) Recv() ([]byte, error) {
	for {
		line, err := l.line()
		if err != nil {
			return nil, err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if line[0] != '{' && line[0] != '[' || !json.Valid(line) {
			return nil, &notMessage{line: excerpt(line)}
		}
		return line, nil
	}
}

// notMessage is a line that is no JSON-RPC message.
type notMessage struct{ line string }

func (n *notMessage) Error() string { return "not a JSON-RPC message: " + n.line }

func (l *lines) line() ([]byte, error) {
	var line []byte
	for {
		chunk, err := l.r.ReadSlice('\n')
		if len(line)+len(chunk) > MaxLine {
			return nil, fmt.Errorf("a line of more than %d bytes: %s", MaxLine, excerpt(append(line, chunk...)))
		}
		line = append(line, chunk...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0:
			return line, nil // a last line without its newline
		default:
			return nil, err
		}
	}
}

func (l *lines) Close() error { return l.w.Close() }

// excerpt quotes the beginning of what a peer wrote, so that it can be shown
// on a terminal.
func excerpt(b []byte) string {
	const most = 80
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "…"
	}
	return strconv.Quote(string(b))
}
