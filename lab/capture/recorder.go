package capture

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/topo/packet"
)

// readInterval is how often the rings are looked at. Looking is a handful of
// memory reads, so one timer for all taps costs less than a wakeup for each
// block of each tap. In one interval a ring of DefaultRingBytes takes 400 MB/s.
const readInterval = 10 * time.Millisecond

// Recorder records until it is closed. Its methods may be called from several
// goroutines, Close once.
type Recorder struct {
	config  Config
	store   *store
	rings   []*packet.Blocks
	routers []*router
	seen    *seen
	watch   watchers

	syncs   chan *mark
	stop    chan struct{}
	done    chan struct{}
	reading bool
}

// mark is a request to have read everything up to now.
type mark struct {
	until []uint64 // per ring, how many blocks must have been read
	done  chan struct{}
}

// read is the one goroutine that reads all rings and writes the capture.
func (r *Recorder) read() {
	defer close(r.done)
	tick := time.NewTicker(readInterval)
	defer tick.Stop()
	var marks []*mark
	for {
		select {
		case <-r.stop:
			r.drain()
			return
		case m := <-r.syncs:
			r.drain()
			for _, ring := range r.rings {
				until := ring.Taken()
				if ring.Waiting() {
					until++
				}
				m.until = append(m.until, until)
			}
			marks = append(marks, m)
			tick.Reset(time.Millisecond)
		case <-tick.C:
			r.drain()
		}
		if len(marks) == 0 {
			continue
		}
		if marks = r.reached(marks); len(marks) == 0 {
			tick.Reset(readInterval)
		}
	}
}

// reached ends the marks up to which all rings have been read and returns the
// others.
func (r *Recorder) reached(marks []*mark) []*mark {
	var left []*mark
	for _, m := range marks {
		if r.behind(m) {
			left = append(left, m)
			continue
		}
		r.store.flush(m.done)
	}
	return left
}

func (r *Recorder) behind(m *mark) bool {
	for i, ring := range r.rings {
		if ring.Taken() < m.until[i] {
			return true
		}
	}
	return false
}

func (r *Recorder) drain() {
	for i, ring := range r.rings {
		ring.Drain(func(c packet.Packet) {
			r.store.packet(i, c)
			if p, ok := evidence.ParseFrame(c.Data); ok {
				r.seen.note(c.At, p)
				r.watch.tell(r.config.Taps[i].Name, c.At, p)
			}
		})
	}
}

// Sync returns when everything that the kernel had captured or logged before
// the call has been read and handed to the files.
//
// For a tap this is sound because the kernel fills a ring's blocks in order
// and counts each packet in its block at once: when all blocks handed over are
// read and the one being filled has no packet, nothing is left; else the call
// waits until that block has been read, at most about BlockTimeout. For a
// drop log it sends a request to the log's own socket; its acknowledgement
// queues behind all messages before it.
func (r *Recorder) Sync(ctx context.Context) error {
	m := &mark{done: make(chan struct{})}
	select {
	case r.syncs <- m:
	case <-r.done:
		return errors.New("sync capture: recorder is closed")
	case <-ctx.Done():
		return fmt.Errorf("sync capture: %w", context.Cause(ctx))
	}
	for _, router := range r.routers {
		if err := router.log.sync(ctx); err != nil {
			return fmt.Errorf("sync capture: drop log of %s: %w", router.name, err)
		}
	}
	r.store.flushLines()
	select {
	case <-m.done:
		return nil
	case <-r.done:
		return errors.New("sync capture: recorder was closed")
	case <-ctx.Done():
		return fmt.Errorf("sync capture: %w", context.Cause(ctx))
	}
}

// Rest returns once no new flow, that is no pair of addresses and ports not
// seen before, has appeared on any tap for as long as quiet. If the context
// ends first, its cause is returned with the flow that came last.
func (r *Recorder) Rest(ctx context.Context, quiet time.Duration) error {
	for {
		now := time.Now()
		err := r.Sync(ctx)
		last, name := r.seen.last()
		left := last.Add(quiet).Sub(now)
		if err == nil && left <= 0 {
			return nil
		}
		if err == nil {
			timer := time.NewTimer(left)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				err = context.Cause(ctx)
			}
		}
		if name != "" {
			return fmt.Errorf("wait for rest (last new flow: %s): %w", name, err)
		}
		return fmt.Errorf("wait for rest: %w", err)
	}
}

// Conntrack records the connection tables of the named routers now, of all if
// none is named. It is called where a window of an exchange begins and ends. A
// dump that fails is counted among the losses too.
func (r *Recorder) Conntrack(routers ...string) error {
	chosen, err := r.choose(routers)
	if err != nil {
		return fmt.Errorf("dump connections: %w", err)
	}
	var errs []error
	for _, router := range chosen {
		if err := router.dump(); err != nil {
			errs = append(errs, fmt.Errorf("dump connections of %s: %w", router.name, err))
		}
	}
	return errors.Join(errs...)
}

// BeforeChange records the connection tables of the named routers and keeps
// their rules' counters so far. It must be called right before a router's
// rules are replaced, since that starts its counters again at zero.
func (r *Recorder) BeforeChange(routers ...string) error {
	chosen, err := r.choose(routers)
	if err != nil {
		return fmt.Errorf("prepare for a change: %w", err)
	}
	var errs []error
	for _, router := range chosen {
		if err := errors.Join(router.dump(), router.keepCounters()); err != nil {
			errs = append(errs, fmt.Errorf("prepare for a change of %s: %w", router.name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Recorder) choose(names []string) ([]*router, error) {
	if len(names) == 0 {
		return r.routers, nil
	}
	var chosen []*router
	for _, name := range names {
		found := false
		for _, router := range r.routers {
			if router.name == name {
				chosen, found = append(chosen, router), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no router %q", name)
		}
	}
	return chosen, nil
}

// closeTimeout bounds how long Close waits for what the kernel still holds.
const closeTimeout = 10 * time.Second

// Close dumps the connection tables once more, reads what the kernel still
// holds, ends the recording and writes losses.json. What went wrong with the
// recording itself is in the losses; the error is for files that could not be
// written.
func (r *Recorder) Close() (evidence.Losses, error) {
	if err := r.Conntrack(); err != nil {
		r.store.problem(err)
	}
	for _, router := range r.routers {
		if err := router.keepCounters(); err != nil {
			r.store.problem(fmt.Errorf("%s: %w", router.name, err))
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout,
		fmt.Errorf("the kernel held packets back for %v", closeTimeout))
	defer cancel()
	if err := r.Sync(ctx); err != nil {
		r.store.problem(err)
	}
	close(r.stop)
	<-r.done
	r.reading = false
	var losses evidence.Losses
	for i, ring := range r.rings {
		received, dropped, err := ring.Count()
		if err = errors.Join(err, ring.Fault()); err != nil {
			r.store.problem(fmt.Errorf("%s: %w", r.config.Taps[i].Name, err))
		}
		r.store.statistics(i, received, dropped)
		losses.Taps = append(losses.Taps, evidence.TapLosses{
			Name: r.config.Taps[i].Name, Received: received, Dropped: dropped, Written: r.store.written[i],
		})
	}
	if over := r.seen.overflow(); over {
		r.store.problem(fmt.Errorf("more than %d flows: the end of new ones could not be told", maxSeen))
	}
	err := r.release()
	for _, router := range r.routers {
		losses.Routers = append(losses.Routers, router.losses())
	}
	losses.Bounded, losses.Problems = r.store.result()
	if writeErr := evidence.WriteLosses(r.config.Dir, losses); writeErr != nil {
		err = errors.Join(err, writeErr)
	}
	if err != nil {
		return losses, fmt.Errorf("close capture: %w", err)
	}
	return losses, nil
}

// release stops what runs and closes what is open.
func (r *Recorder) release() error {
	if r.reading {
		close(r.stop)
		<-r.done
		r.reading = false
	}
	// The kernel lets a packet socket go only when every processor has passed
	// by; all at once wait for that together.
	errs := make([]error, len(r.routers)+len(r.rings)+1)
	var closing sync.WaitGroup
	for i, router := range r.routers {
		closing.Go(func() { errs[i] = router.close() })
	}
	for i, ring := range r.rings {
		closing.Go(func() { errs[len(r.routers)+i] = ring.Close() })
	}
	closing.Wait()
	if r.store != nil {
		errs[len(errs)-1] = r.store.close()
	}
	return errors.Join(errs...)
}
