// Package capture records what happens in a lab while it runs: the packets at
// every tap, the connection tables of the routers and the packets they drop.
// The files it writes, and what they mean, are package evidence's.
//
// It needs CAP_NET_RAW and CAP_NET_ADMIN in the user namespace that owns the
// network namespaces, so it works in an unprivileged one.
package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/topo/ns"
	"gauntlet/topo/packet"
)

// Config says what to record. Dir must exist.
type Config struct {
	// Dir is the folder that the files are written into.
	Dir string
	// Taps are the interfaces whose packets are recorded.
	Taps []Tap
	// Routers are the namespaces whose connection tables and drop logs are.
	Routers []Router
	// MaxBytes bounds the evidence written, over all files; 0 means
	// DefaultMaxBytes. At the bound writing ends and Losses says so.
	MaxBytes int64
	// RingBytes is the kernel's buffer for one tap, rounded up to whole blocks
	// of 8 KiB; 0 means DefaultRingBytes. A smaller one loses packets sooner
	// when the machine is busy.
	RingBytes int
	// BlockTimeout is after how long the kernel hands over a block that is not
	// full; 0 means DefaultBlockTimeout. A longer one costs less and delays
	// Sync. The kernel counts it in whole milliseconds.
	BlockTimeout time.Duration
}

// The defaults of Config. Four MiB hold some 20,000 of the 2004 load's packets
// at a tap, or 5 s of any traffic that is thinner: at 50,000 packets/s the
// reader may be kept waiting for 0.4 s, and on a busy machine 0.28 s was seen.
const (
	DefaultMaxBytes     = 256 << 20
	DefaultRingBytes    = 4 << 20
	DefaultBlockTimeout = 10 * time.Millisecond
)

// Tap is one interface.
type Tap struct {
	// Name is the tap's in the files: "alice/eth0", "home-a/wan".
	Name      string
	Namespace *ns.Handle
	// Interface is the device's name inside Namespace.
	Interface string
}

// Router is one namespace that tracks connections.
type Router struct {
	Name      string
	Namespace *ns.Handle
	// LogGroup is the NFLOG group that its rules log dropped packets to.
	LogGroup uint16
	// Counters reads how many packets each logged rule has dropped, by the
	// rule's name; nil if there are none to compare with.
	Counters func() (map[string]uint64, error)
}

// withDefaults fills in what the configuration leaves out.
func (c Config) withDefaults() Config {
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.RingBytes <= 0 {
		c.RingBytes = DefaultRingBytes
	}
	if c.BlockTimeout <= 0 {
		c.BlockTimeout = DefaultBlockTimeout
	}
	return c
}

// Start begins to record; when it returns, every tap and every log is open.
// The context bounds only the start. The recorder must be closed.
func Start(ctx context.Context, config Config) (_ *Recorder, err error) {
	config = config.withDefaults()
	r := &Recorder{
		config: config,
		syncs:  make(chan *mark),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		seen:   newSeen(time.Now()),
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start capture: %w", err), r.release())
		}
	}()
	names := make([]string, len(config.Taps))
	for i, t := range config.Taps {
		names[i] = t.Name
	}
	if r.store, err = openStore(config.Dir, names, config.MaxBytes); err != nil {
		return nil, err
	}
	if r.rings, err = openRings(ctx, config); err != nil {
		return nil, err
	}
	for _, config := range config.Routers {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		router, err := openRouter(config, r.store)
		if router != nil {
			r.routers = append(r.routers, router)
		}
		if err != nil {
			return nil, fmt.Errorf("router %s: %w", config.Name, err)
		}
	}
	for _, router := range r.routers {
		router.log.start()
	}
	go r.read()
	r.reading = true
	return r, nil
}

// maxOpening bounds the threads that open rings at once.
const maxOpening = 64

// openRings opens the ring of each tap. Each waits for a grace period of the
// kernel's, so all do at once. On failure none is left open.
func openRings(ctx context.Context, config Config) ([]*packet.Blocks, error) {
	rings := make([]*packet.Blocks, len(config.Taps))
	var opening errgroup.Group
	opening.SetLimit(maxOpening)
	for i, t := range config.Taps {
		opening.Go(func() (err error) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if rings[i], err = packet.OpenBlocks(t.Namespace, t.Interface, config.RingBytes, config.BlockTimeout); err != nil {
				return fmt.Errorf("tap %s: %w", t.Name, err)
			}
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		errs := []error{err}
		for _, r := range rings {
			if r != nil {
				errs = append(errs, r.Close())
			}
		}
		return nil, errors.Join(errs...)
	}
	return rings, nil
}
