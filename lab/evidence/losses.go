package evidence

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// DroppedPacket is a packet that a box's rule dropped, as its log gave it.
type DroppedPacket struct {
	Time   time.Time `json:"time"`
	Router string    `json:"router"`
	Rule   string    `json:"rule"`
	// Packet is the whole IP packet, base64 in JSON.
	Packet []byte `json:"packet"`
}

// Losses is what the recording missed. Anything in it makes a check
// inconclusive, since what was not seen cannot be judged.
type Losses struct {
	Taps    []TapLosses    `json:"taps"`
	Routers []RouterLosses `json:"routers"`
	// Bounded says that the bound on evidence was reached and writing ended.
	Bounded bool `json:"bounded"`
	// Problems are failures of the recorder itself, one sentence each.
	Problems []string `json:"problems,omitempty"`
}

// TapLosses are the packets of one tap.
type TapLosses struct {
	Name     string `json:"name"`
	Received uint64 `json:"received"`
	// Dropped is how many the kernel could not hand over.
	Dropped uint64 `json:"dropped"`
	// Written is how many are in the capture.
	Written uint64 `json:"written"`
}

// RouterLosses are the log messages and the table dumps of one router.
type RouterLosses struct {
	Name string `json:"name"`
	// Logged is how many drop messages arrived, Missing how many the sequence
	// numbers say are lost, Overruns how often the socket's buffer ran over.
	Logged   uint64 `json:"logged"`
	Missing  uint64 `json:"missing"`
	Overruns uint64 `json:"overruns"`
	// Rules sets each rule's counter beside the messages of that rule.
	Rules map[string]RuleCount `json:"rules,omitempty"`
	// Dumps is how many dumps of the tracking table were written, FailedDumps
	// how many failed.
	Dumps       uint64 `json:"dumps"`
	FailedDumps uint64 `json:"failed_dumps"`
}

// RuleCount is a rule's own counter and the messages that were logged for it.
type RuleCount struct {
	Counted uint64 `json:"counted"`
	Logged  uint64 `json:"logged"`
}

// Reasons says what was lost, one sentence each; none if nothing was.
func (l Losses) Reasons() []string {
	var reasons []string
	say := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	for _, t := range l.Taps {
		if t.Dropped > 0 {
			say("the capture at %s lost %d of %d packets", t.Name, t.Dropped, t.Received)
		}
	}
	for _, r := range l.Routers {
		if r.Missing > 0 {
			say("%d drop messages of %s are missing", r.Missing, r.Name)
		}
		if r.Overruns > 0 {
			say("the drop log of %s ran over %d times", r.Name, r.Overruns)
		}
		if r.FailedDumps > 0 {
			say("%d dumps of the connection table of %s failed", r.FailedDumps, r.Name)
		}
		for _, rule := range slices.Sorted(maps.Keys(r.Rules)) {
			if c := r.Rules[rule]; c.Logged < c.Counted {
				say("%s dropped %d packets by %s and logged %d", r.Name, c.Counted, rule, c.Logged)
			}
		}
	}
	if l.Bounded {
		say("the bound on evidence was reached")
	}
	return append(reasons, l.Problems...)
}

// stored is how much of a recording its files hold: packets by tap, drop
// messages and table dumps by router.
type stored struct {
	packets, drops, dumps map[string]uint64
}

// less says where the files hold less than the recording put there, one
// sentence each. At the bound on evidence that is what is to be expected.
func (l Losses) less(s stored) (reasons []string) {
	if l.Bounded {
		return nil
	}
	say := func(file, place, what string, has, had uint64) {
		if has < had {
			reasons = append(reasons, fmt.Sprintf("%s holds %d %s of %s, and %d were recorded", file, has, what, place, had))
		}
	}
	for _, t := range l.Taps {
		say(CaptureFile, t.Name, "packets", s.packets[t.Name], t.Written)
	}
	for _, r := range l.Routers {
		say(DropsFile, r.Name, "drop messages", s.drops[r.Name], r.Logged)
		say(ConntrackFile, r.Name, "table dumps", s.dumps[r.Name], r.Dumps)
	}
	return reasons
}
