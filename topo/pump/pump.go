// Package pump is a link in user space: it takes frames out of one network
// interface and puts them into another, later, in order, and not all of them.
// It is for kernels without netem(8), and for what netem can't promise: that
// jitter reorders nothing, that a seed decides which frames are lost.
//
//	   host              namespace of the links             router
//	eth0 ------------- inner [ port  line -> port ] outer ------------- p1
//	                         [       <- line      ]
//
// One thread serves all links of a pump. It sleeps until a frame comes or is
// due, so that a pump with nothing to do takes no processor time.
package pump

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Link is what the pump is to do between two interfaces of its namespace, which
// are up and which nothing else uses.
type Link struct {
	// Name is for Report.
	Name string
	// Inner and Outer are the interfaces towards the host and the internet.
	Inner, Outer string
	Up, Down     Impairment
	// Seed decides what is random, together with the name.
	Seed uint64
}

// Report is what became of the frames of a link, from the beginning.
type Report struct {
	Name     string
	Up, Down Counts
}

// Pump moves frames until it is closed. Its methods may be called from several
// goroutines at once.
type Pump struct {
	links []Link
	lanes []*lane // two for each link: up, down
	epoll int
	timer int
	wake  int // an eventfd: the loop has to look at stopped

	start   time.Time
	calm    atomic.Bool
	stopped atomic.Bool
	done    chan struct{}

	mu     sync.Mutex // guards the lanes' lines, and what follows
	err    error
	closed bool
}

// lane is one direction of a link.
type lane struct {
	from, to *port
	line     *Line
}

// Events of the loop that are no port.
const (
	timerEvent = -1
	wakeEvent  = -2
)

// Start begins to move frames between interfaces of a namespace. The pump must
// be closed; it ends with the process at the latest.
func Start(space *ns.Handle, links []Link) (_ *Pump, err error) {
	p := &Pump{links: slices.Clone(links), epoll: -1, timer: -1, wake: -1, start: time.Now(), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start frame pump: %w", err), p.release())
		}
	}()
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	// The timer is never read: only its going off counts.
	if err := errors.Join(p.watch(p.timer, timerEvent, unix.EPOLLIN|unix.EPOLLET), p.watch(p.wake, wakeEvent, unix.EPOLLIN)); err != nil {
		return nil, err
	}
	if err := p.open(space); err != nil {
		return nil, err
	}
	go p.run()
	return p, nil
}

// open opens both ends of all links. Each waits for a grace period of the
// kernel's, so all do at once.
func (p *Pump) open(space *ns.Handle) error {
	p.lanes = make([]*lane, 2*len(p.links))
	var opening errgroup.Group
	opening.SetLimit(maxOpening)
	for n, l := range p.links {
		up, down := &lane{line: NewLine(l.Up, l.Seed, hash(l.Name+"/up"))}, &lane{line: NewLine(l.Down, l.Seed, hash(l.Name+"/down"))}
		p.lanes[2*n], p.lanes[2*n+1] = up, down
		for _, e := range []struct {
			name     string
			from, to *lane
		}{{l.Inner, up, down}, {l.Outer, down, up}} {
			opening.Go(func() (err error) {
				e.from.from, err = openPort(space, e.name)
				e.to.to = e.from.from
				return err
			})
		}
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	for n, l := range p.lanes {
		if err := p.watch(l.from.FD(), n, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return nil
}

// maxOpening bounds the threads that are in the namespace at once.
const maxOpening = 64

func (p *Pump) watch(fd, event int, events uint32) error {
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(event)}); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// hash is FNV-1a of 64 bits.
func hash(text string) uint64 {
	sum := uint64(0xcbf29ce484222325)
	for i := range len(text) {
		sum = (sum ^ uint64(text[i])) * 0x100000001b3
	}
	return sum
}

// now is the time since the pump's start.
func (p *Pump) now() time.Duration { return time.Since(p.start) }

// run is the loop. It has a thread of its own, which sleeps in the kernel: the
// runtime's own timers are good to a millisecond only.
func (p *Pump) run() {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.loop(); err != nil {
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}
}

func (p *Pump) loop() error {
	events := make([]unix.EpollEvent, max(16, len(p.lanes)+2))
	s := new(sender)
	frames := make([][]byte, 0, batch)
	armed := time.Duration(-1) // what the timer was last set to
	wait := -1                 // ms: until something happens, or not at all
	for {
		n, err := unix.EpollWait(p.epoll, events, wait)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("frame pump: wait: %w", err)
		}
		if p.stopped.Load() {
			return nil
		}
		p.mu.Lock()
		err = p.take(events[:n])
		var next time.Duration
		waits := false
		if err == nil {
			next, waits, err = p.give(s, frames)
		}
		p.mu.Unlock()
		if err != nil {
			return fmt.Errorf("frame pump: %w", err)
		}
		wait = -1
		left := next - p.now()
		switch {
		case waits && left <= 0:
			wait = 0
		case waits && next != armed:
			spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(left))}
			if err := unix.TimerfdSettime(p.timer, 0, &spec, nil); err != nil {
				return fmt.Errorf("frame pump: set timer: %w", err)
			}
			armed = next
		}
	}
}

// take puts what has come in at the ports onto their lines.
func (p *Pump) take(ready []unix.EpollEvent) error {
	calm := p.calm.Load()
	for _, e := range ready {
		if e.Fd < 0 {
			continue
		}
		l := p.lanes[e.Fd]
		l.from.drain(p.now, func(at time.Duration, frame []byte) {
			if frame == nil {
				l.line.Refused++
				return
			}
			l.line.Push(at, frame, calm)
		})
		if e.Events&unix.EPOLLERR != 0 {
			if err := l.from.Fault(); err != nil {
				return fmt.Errorf("take from %s: %w", l.from.name, err)
			}
		}
	}
	return nil
}

// give sends what is due, and says when the next frame is, if there is one.
func (p *Pump) give(s *sender, frames [][]byte) (next time.Duration, waits bool, err error) {
	for _, l := range p.lanes {
		for {
			at, ok := l.line.Next()
			now := p.now()
			if !ok || at > now {
				if ok && (!waits || at < next) {
					next, waits = at, true
				}
				break
			}
			due := l.line.Due(now, frames)
			sent, err := s.send(l.to, due)
			l.line.Passed += uint64(sent)
			if err != nil {
				if !refusal(err) {
					return 0, false, fmt.Errorf("send through %s: %w", l.to.name, err)
				}
				sent++
				l.line.Refused++
			}
			l.line.Pop(sent)
		}
	}
	return next, waits, nil
}

// refusal says whether an error concerns one frame: the interface has no room
// for it.
func refusal(err error) bool {
	for _, of := range []error{unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM, unix.EMSGSIZE, unix.EINTR} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// Calm has frames pass without impairment from now on, or with it again. Those
// under way stay as late as they are, and nothing overtakes them.
func (p *Pump) Calm(calm bool) { p.calm.Store(calm) }

// Impair has a link do something else to the frames that come from now on. A name
// that no link has changes nothing.
func (p *Pump) Impair(name string, up, down Impairment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, l := range p.links {
		if l.Name == name {
			p.lanes[2*n].line.Impairment, p.lanes[2*n+1].line.Impairment = up, down
		}
	}
}

// Report says what became of the frames, link by link. The error is why the pump
// has ended before it was closed, if it has.
func (p *Pump) Report() ([]Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{p.err}
	reports := make([]Report, len(p.links))
	for i, l := range p.links {
		up, down := p.lanes[2*i], p.lanes[2*i+1]
		for _, l := range []*lane{up, down} {
			n, err := l.from.unread()
			l.line.Unread = n
			errs = append(errs, err)
		}
		reports[i] = Report{l.Name, up.line.Counts, down.line.Counts}
	}
	return reports, errors.Join(errs...)
}

// Done is closed when the pump has ended, because it was closed or because it
// could not go on: Report says why.
func (p *Pump) Done() <-chan struct{} { return p.done }

// Close ends the pump and waits for it. What is under way is lost. It returns
// why the pump ended before, if it did. A second Close does nothing.
func (p *Pump) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	p.stopped.Store(true)
	if _, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("close frame pump: %w", err) // the loop still uses the descriptors
	}
	<-p.done
	_, err := p.Report()
	return errors.Join(err, p.release())
}

// release closes what is open.
func (p *Pump) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The kernel lets a packet socket go only when every processor has passed
	// by; all at once wait for that together.
	errs := make([]error, len(p.lanes)+3)
	var closing sync.WaitGroup
	for i, l := range p.lanes {
		if l.from != nil {
			closing.Go(func() { errs[i] = l.from.Close() })
		}
	}
	closing.Wait()
	for i, fd := range []*int{&p.epoll, &p.timer, &p.wake} {
		if *fd >= 0 {
			errs[len(p.lanes)+i] = unix.Close(*fd)
			*fd = -1
		}
	}
	return errors.Join(errs...)
}
