package directory

import (
	"context"
	"errors"
	"sync"
	"time"

	"gauntlet/nodes/identity"
)

// each does one thing with every supernode at once, and returns with how many
// it went well and the errors of the others. Once it went well with one, the
// others have no longer than grace: a dead supernode must not slow down what
// the living know.
func each(ctx context.Context, grace time.Duration, list []Supernode, do func(context.Context, Supernode) error) (well int, err error) {
	if len(list) == 0 {
		return 0, errors.New("no supernode is known")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := sync.OnceValue(func() *time.Timer {
		return time.AfterFunc(grace, func() { cancel(errors.New("others answered long before")) })
	})
	var tasks sync.WaitGroup
	failures := make([]error, len(list))
	for i, to := range list {
		tasks.Go(func() {
			if failures[i] = do(ctx, to); failures[i] == nil {
				first()
			}
		})
	}
	tasks.Wait()
	first().Stop()
	for _, failure := range failures {
		if failure == nil {
			well++
		}
	}
	return well, errors.Join(failures...)
}

// newest picks the record with the highest sequence number out of several
// answers. It may be used concurrently.
type newest struct {
	mu     sync.Mutex
	signed Signed
	record *Record
}

// offer takes an answer into account; one whose record is not right counts
// for nothing.
func (n *newest) offer(answer recordAnswer, roots identity.Roots) {
	if !answer.Found {
		return
	}
	r, err := answer.Record.Open(roots)
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.record == nil || r.Sequence > n.record.Sequence {
		n.record, n.signed = r, answer.Record
	}
}

// answer is what was found.
func (n *newest) answer() recordAnswer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return recordAnswer{Found: n.record != nil, Record: n.signed}
}
