package media

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/transport/v4/replaydetector"
)

// ErrNotMedia means that a packet cannot be one of the stream's: too short,
// too long, not RTP version 2, or of another source.
var ErrNotMedia = errors.New("not a packet of this media stream")

// Stats are what a receiver saw of its stream, after RFC 3550 §6.4.1.
type Stats struct {
	Received int           // packets whose tag was right, once each, in time or not
	Expected int           // from the first sequence number to the highest
	Rejected int           // packets refused: wrong tag, repeated, not media
	Bytes    int64         // of the packets received, as UDP payload
	Jitter   time.Duration // interarrival jitter
	First    time.Time     // arrival of the first packet, zero if none came
	Last     time.Time     // arrival of the last packet
}

// Lost is how many of the expected packets did not arrive (yet).
func (s Stats) Lost() int { return max(0, s.Expected-s.Received) }

// Receiver checks the packets of one direction and counts them. It is safe
// for concurrent use, since packets may come over two paths at once while a
// call changes over.
type Receiver struct {
	mu      sync.Mutex
	context *srtp.Context
	header  rtp.Header
	plain   []byte

	known       bool   // ssrc is
	ssrc        uint32 // of the first packet with a right tag
	first, high int64  // extended sequence numbers, RFC 3550 appendix A.1
	transit     time.Duration
	started     bool
	stats       Stats
	arrived     chan struct{} // closed with the first packet
}

// NewReceiver makes a receiver with an empty replay window.
func NewReceiver(master Master) (*Receiver, error) {
	context, err := srtp.CreateContext(master.Key[:], master.Salt[:], profile,
		srtp.SRTPReplayDetectorFactory(func() replaydetector.ReplayDetector { return newWindow() }))
	if err != nil {
		return nil, fmt.Errorf("make SRTP receiver: %w", err)
	}
	return &Receiver{context: context, plain: make([]byte, MaxPacket), arrived: make(chan struct{})}, nil
}

// Arrived is closed once the first packet with a right tag has come.
func (r *Receiver) Arrived() <-chan struct{} { return r.arrived }

// Receive checks a packet that arrived at now and returns its payload, valid
// until the next call. A packet that is not the stream's, was seen before, or
// was changed on its way is refused and counted as such; the packet itself is
// left as it is.
func (r *Receiver) Receive(packet []byte, now time.Time) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(packet) < HeaderSize+TagSize || len(packet) > MaxPacket || packet[0]>>6 != 2 {
		r.stats.Rejected++
		return nil, ErrNotMedia
	}
	n, err := r.header.Unmarshal(packet)
	if err != nil || (r.known && r.header.SSRC != r.ssrc) {
		r.stats.Rejected++
		return nil, ErrNotMedia
	}
	plain, err := r.context.DecryptRTP(r.plain, packet, &r.header)
	if err != nil {
		r.stats.Rejected++
		return nil, fmt.Errorf("open media packet: %w", err)
	}
	r.count(len(packet), now)
	return plain[n:], nil
}

// count enters a good packet into the statistics.
func (r *Receiver) count(size int, now time.Time) {
	sequence := int64(r.header.SequenceNumber)
	if !r.known {
		r.known, r.ssrc = true, r.header.SSRC
		r.first, r.high = sequence, sequence
		r.stats.First = now
		close(r.arrived)
	}
	// The extended number nearest to the highest so far.
	extended := r.high + int64(int16(uint16(sequence)-uint16(r.high)))
	r.high = max(r.high, extended)
	r.first = min(r.first, extended)
	r.stats.Received++
	r.stats.Bytes += int64(size)
	r.stats.Expected = int(r.high - r.first + 1)
	r.stats.Last = now

	// RFC 3550 §6.4.1: J += (|D| - J) / 16, on differences of transit times.
	// The sender's clock is taken modulo 2^32 ticks, which cancels out.
	transit := now.Sub(r.stats.First) - time.Duration(r.header.Timestamp)*time.Second/ClockRate
	if r.started {
		d := (transit - r.transit).Abs()
		if d < time.Hour { // not across a wrap of the timestamp
			r.stats.Jitter += (d - r.stats.Jitter) / 16
		}
	}
	r.transit, r.started = transit, true
}

// Stats returns the counts so far.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}
