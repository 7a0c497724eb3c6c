package capture

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mdlayher/netlink"

	"gauntlet/lab/evidence"
)

// router is what is open of one router.
type router struct {
	name     string
	counters func() (map[string]uint64, error)
	log      *dropLog
	store    *store

	mu      sync.Mutex // guards what follows
	table   *netlink.Conn
	base    map[string]uint64 // counters when the present rules were first read
	counted map[string]uint64 // packets since the recording began
	dumped  uint64            // dumps
	failed  uint64            // dumps
}

// openRouter opens the log first and reads the counters then, so that no
// packet is counted without being logged. On failure it returns what is open.
func openRouter(config Router, store *store) (*router, error) {
	log, err := openDropLog(config.Namespace, config.Name, config.LogGroup, store)
	if err != nil {
		return nil, err
	}
	r := &router{
		name: config.Name, counters: config.Counters, log: log, store: store,
		base: map[string]uint64{}, counted: map[string]uint64{},
	}
	if r.table, err = dialNetfilter(config.Namespace); err != nil {
		return r, err
	}
	if r.counters != nil {
		if r.base, err = r.counters(); err != nil {
			return r, fmt.Errorf("read counters: %w", err)
		}
	}
	return r, nil
}

// dump records the connection table.
func (r *router) dump() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := dumpConntrack(r.table)
	if err != nil {
		r.failed++
		return err
	}
	r.dumped++
	r.store.line(evidence.ConntrackFile, evidence.Dump{Time: time.Now(), Router: r.name, Flows: entries})
	return nil
}

// keepCounters adds what the rules have counted since they were loaded. The
// next counters read are taken to start at zero.
func (r *router) keepCounters() error {
	if r.counters == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := r.counters()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	for rule, n := range now {
		if base := r.base[rule]; n > base {
			r.counted[rule] += n - base
		}
	}
	r.base = map[string]uint64{}
	return nil
}

// losses is what was missed; the log must have ended.
func (r *router) losses() evidence.RouterLosses {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	l := evidence.RouterLosses{
		Name: r.name, Logged: r.log.logged, Missing: r.log.missing, Overruns: r.log.overrun,
		Dumps: r.dumped, FailedDumps: r.failed,
	}
	rules := maps.Clone(r.counted)
	for rule := range r.log.rules {
		rules[rule] += 0
	}
	if len(rules) > 0 && r.counters != nil {
		l.Rules = make(map[string]evidence.RuleCount)
		for rule, n := range rules {
			l.Rules[rule] = evidence.RuleCount{Counted: n, Logged: r.log.rules[rule]}
		}
	}
	return l
}

func (r *router) close() error {
	var errs []error
	errs = append(errs, r.log.close())
	if r.table != nil {
		errs = append(errs, r.table.Close())
	}
	return errors.Join(errs...)
}
