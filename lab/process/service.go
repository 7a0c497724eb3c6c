package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Service is a running program that nobody drives.
type Service struct {
	Name string

	cmd  *exec.Cmd
	log  *Log
	done chan struct{}

	mu  sync.Mutex
	err error // how the process ended
}

// StartService starts a program that serves others in its namespace. Both its
// outputs go to the log; no log file keeps their end in memory alone.
func StartService(c Config) (*Service, error) {
	var file io.WriteCloser = nowhere{io.Discard}
	if c.Log != "" {
		f, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644) // it may be started again
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", c.Name, err)
		}
		file = f
	}
	s := &Service{Name: c.Name, cmd: Command(c.Argv, c.Dir, c.Env), log: &Log{file: file}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.WaitDelay = stopGrace
	if err := Start(s.cmd, c.Namespace, c.Privileges); err != nil {
		file.Close()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go func() {
		err := s.cmd.Wait()
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		file.Close()
		close(s.done)
	}()
	return s, nil
}

type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

// Done is closed once the process has ended.
func (s *Service) Done() <-chan struct{} { return s.done }

// Ended says how the process ended and what it wrote last. It must have ended.
func (s *Service) Ended() error {
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	how := "it exited by itself"
	if s.err != nil {
		how = s.err.Error()
	}
	last := "it wrote nothing"
	if lines := s.log.last(5); len(lines) > 0 {
		last = "its last lines:\n    " + strings.Join(lines, "\n    ")
	}
	return fmt.Errorf("%s died: %s; %s", s.Name, how, last)
}

// Kill ends the service and everything that it started, and waits for it.
func (s *Service) Kill() {
	Kill(s.cmd)
	<-s.done
}
