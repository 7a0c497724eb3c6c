package media

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// Load is the 2004 load: Rate packets a second of PacketSize bytes, without
// silence suppression, from the moment it runs until it is stopped (BS04 §4.5,
// §4.6).
type Load struct {
	sender *Sender
	random *rand.ChaCha8
}

// NewLoad makes a load whose packets leave through the sender.
func NewLoad(sender *Sender) *Load {
	var seed [32]byte
	for i := range 4 {
		binary.LittleEndian.PutUint64(seed[8*i:], rand.Uint64())
	}
	return &Load{sender: sender, random: rand.NewChaCha8(seed)}
}

// Run sends a packet at each of the load's instants until ctx ends, and
// returns how many write took. A packet that write fails on is lost, as on any
// path, and not counted; a packet that is due while an earlier one is still
// being written is sent right after it. The error is the first that made a
// packet impossible (not ctx's).
func (l *Load) Run(ctx context.Context, write func(packet []byte) error) (sent int, err error) {
	payload := make([]byte, PayloadSize)
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		timer.Reset(time.Until(start.Add(instant(n))))
		select {
		case <-ctx.Done():
			return sent, nil
		case <-timer.C:
		}
		l.random.Read(payload)
		packet, err := l.sender.Packet(payload, timestamp(n))
		if err != nil {
			return sent, err
		}
		if write(packet) == nil {
			sent++
		}
	}
}
