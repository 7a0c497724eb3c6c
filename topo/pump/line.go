package pump

import (
	"math/rand/v2"
	"time"
)

// Impairment is what one direction of a link does to the frames that cross it.
// The zero value does nothing.
type Impairment struct {
	// Delay is how long each frame takes, and Jitter how much longer or shorter
	// that is for some of them, at most Delay. Each frame's own delay is drawn
	// evenly from Delay-Jitter to Delay+Jitter, which is netem(8)'s default too,
	// independently of all others; but no frame overtakes the one before it: it
	// then leaves together with that one.
	Delay, Jitter time.Duration
	// Loss is the share of frames that are lost, 0 to 1, each independently of
	// all others.
	Loss float64
}

// MaxBytes bounds what a line holds, in bytes of frames and of the records of
// them: 1 s at 100 Mbit/s. A frame that comes when the line is full is dropped,
// as a router's queue drops it, and counted.
const MaxBytes = 16 << 20

// A line keeps frames in chunks, one behind the other, so that it takes as much
// memory as there are frames and allocates none for each.
const (
	chunkBytes   = 64 << 10
	chunkRecords = 1024 // of 16 bytes: frames of 64 bytes fill records and bytes alike
	maxChunks    = MaxBytes / (chunkBytes + 16*chunkRecords)
	spareChunks  = 4 // kept when they are empty
)

// Counts is what became of the frames of a line.
type Counts struct {
	Passed   uint64 // left in the end
	Lost     uint64 // lost as the impairment asks
	Overflow uint64 // dropped, since the line was full
	Refused  uint64 // not taken by the interface at the far end, or longer than any link takes
	Unread   uint64 // dropped before the pump, which was too slow to read them
}

// Line is one direction of a link: frames in the order they came, each with the
// time it may leave. Time is an argument, counted from any one moment. The same
// seed always gives the same fates: the n-th frame's depend on nothing else.
type Line struct {
	Impairment
	Counts

	random *rand.Rand
	last   time.Duration // when the frame that came last may leave
	chunks []*chunk      // the first holds the frames that leave first
	spare  []*chunk
}

// chunk holds frames that follow each other.
type chunk struct {
	records []record
	next    int // the record that leaves next
	data    []byte
}

// record is one frame: its bytes end where the next record's begin.
type record struct {
	leaves time.Duration
	begin  uint32
	length uint32
}

// NewLine makes an empty line.
func NewLine(i Impairment, seed1, seed2 uint64) *Line {
	return &Line{Impairment: i, random: rand.New(rand.NewPCG(seed1, seed2))}
}

// Push takes a frame of at most 64 KiB that came at a time, unless it is lost or
// the line is full. A line that is calm adds nothing to what is on it: its frame
// leaves at once, behind those that came before it. The frame is copied.
func (l *Line) Push(at time.Duration, frame []byte, calm bool) {
	leaves := at
	if !calm {
		// Two draws for each frame, whatever comes of it.
		lost := l.random.Float64() < l.Loss
		varies := time.Duration((2*l.random.Float64() - 1) * float64(l.Jitter))
		if lost {
			l.Lost++
			return
		}
		leaves += l.Delay + varies
	}
	leaves = max(leaves, l.last)
	c := l.room(len(frame))
	if c == nil {
		l.Overflow++
		return
	}
	l.last = leaves
	c.records = append(c.records, record{leaves, uint32(len(c.data)), uint32(len(frame))})
	c.data = append(c.data, frame...)
}

// room returns a chunk that has room for a frame, nil if there may be none.
func (l *Line) room(length int) *chunk {
	if n := len(l.chunks); n > 0 {
		c := l.chunks[n-1]
		if len(c.records) < cap(c.records) && len(c.data)+length <= cap(c.data) {
			return c
		}
	}
	if len(l.chunks) == maxChunks || length > chunkBytes {
		return nil
	}
	var c *chunk
	if n := len(l.spare); n > 0 {
		c, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		c = &chunk{records: make([]record, 0, chunkRecords), data: make([]byte, 0, chunkBytes)}
	}
	l.chunks = append(l.chunks, c)
	return c
}

// Next says when the frame at the head may leave; ok is false on an empty line.
func (l *Line) Next() (at time.Duration, ok bool) {
	if len(l.chunks) == 0 {
		return 0, false
	}
	c := l.chunks[0]
	return c.records[c.next].leaves, true
}

// Due appends to frames those that may leave now, in order, as many as fit into
// its capacity. They stay on the line, and valid, until Pop takes them off.
func (l *Line) Due(now time.Duration, frames [][]byte) [][]byte {
	for _, c := range l.chunks {
		for _, r := range c.records[c.next:] {
			if r.leaves > now || len(frames) == cap(frames) {
				return frames
			}
			frames = append(frames, c.data[r.begin:r.begin+r.length])
		}
	}
	return frames
}

// Pop takes the first n frames off the line.
func (l *Line) Pop(n int) {
	for n > 0 && len(l.chunks) > 0 {
		c := l.chunks[0]
		taken := min(n, len(c.records)-c.next)
		c.next += taken
		n -= taken
		if c.next < len(c.records) {
			return
		}
		c.records, c.data, c.next = c.records[:0], c.data[:0], 0
		// Moved down rather than cut off in front, so that the slice stays where it is.
		copy(l.chunks, l.chunks[1:])
		l.chunks[len(l.chunks)-1] = nil
		l.chunks = l.chunks[:len(l.chunks)-1]
		if len(l.spare) < spareChunks {
			l.spare = append(l.spare, c)
		}
	}
}
