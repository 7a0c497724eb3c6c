package capture

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
)

// slowFile takes nothing until it is let.
type slowFile struct {
	bytes.Buffer
	let chan struct{}
	err error
}

func (f *slowFile) Write(data []byte) (int, error) {
	<-f.let
	if f.err != nil {
		return 0, f.err
	}
	return f.Buffer.Write(data)
}

// A file that takes nothing for a while holds up nobody; then all is written, in
// order, and a mark waits for it.
func TestSpoolWaitsForTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := &slowFile{let: make(chan struct{})}
		s := newSpool(file)
		var want []byte
		for n := range spoolBlocks {
			data := bytes.Repeat([]byte{byte(n)}, 1000+n)
			want = append(want, data...)
			if _, err := s.Write(data); err != nil {
				t.Fatal(err)
			}
			clear(data) // the spool has its own copy
		}
		written := make(chan struct{})
		go s.mark(written)
		synctest.Wait()
		select {
		case <-written:
			t.Error("marked before anything was written")
		default:
		}
		close(file.let)
		<-written
		if !bytes.Equal(file.Bytes(), want) {
			t.Errorf("%d bytes in the file, want %d in order", file.Len(), len(want))
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSpoolSaysWhatFailed(t *testing.T) {
	file := &slowFile{let: make(chan struct{}), err: errors.New("disk full")}
	close(file.let)
	s := newSpool(file)
	if _, err := s.Write([]byte("lost")); err != nil && !errors.Is(err, file.err) {
		t.Error(err)
	}
	written := make(chan struct{})
	s.mark(written)
	<-written
	if _, err := s.Write([]byte("lost too")); !errors.Is(err, file.err) {
		t.Errorf("a write after a failed one: %v, want %v", err, file.err)
	}
	if err := s.close(); !errors.Is(err, file.err) {
		t.Errorf("close: %v, want %v", err, file.err)
	}
}
