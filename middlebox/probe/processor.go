package probe

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// turn spreads measurements over the processors.
var turn atomic.Uint32

// pin keeps the calling goroutine on one processor until unpin is called. The
// kernel carries a packet from namespace to namespace on the processor that
// sent it, where packets wait in one queue; between processors they overtake
// each other. So a fence proves something only if it was sent on the processor
// of what it fences in.
func pin() (unpin func(), err error) {
	runtime.LockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("find the processors: %w", err)
	}
	n := int(turn.Add(1)) % max(before.Count(), 1)
	var one unix.CPUSet
	for cpu := 0; one.Count() == 0; cpu++ {
		if !before.IsSet(cpu) {
			continue
		}
		if n--; n < 0 {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("stay on one processor: %w", err)
	}
	return func() {
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with the goroutine
	}, nil
}
