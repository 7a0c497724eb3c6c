package model

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// Time in the tests of expiry: packets are sent at multiples of tick, so that
// none comes near the end of a timer, which is of whole seconds. A packet that
// is sent later than late is too near.
const (
	tick       = 600 * time.Millisecond
	late       = 120 * time.Millisecond
	shortTimer = time.Second
	longTimer  = 2 * time.Second
)

// later is a step after some ticks.
type later struct {
	step
	ticks int
}

// ageing draws a sequence that takes up to some seconds.
func ageing(r *rig, b middlebox.Behaviour) *rapid.Generator[[]later] {
	packets := steps(r, b).Filter(func(list []step) bool { return len(list) >= 4 })
	return rapid.Custom(func(t *rapid.T) (list []later) {
		for _, s := range packets.Draw(t, "packets") {
			list = append(list, later{s, rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "ticks")})
		}
		return list
	})
}

// errLate is that of a machine that was too busy.
var errLate = errors.New("a packet was sent too late")

// age runs a sequence through kernel and model in real time.
func age(r *rig, b middlebox.Behaviour, sequence []later) (difference error, failed error) {
	c, err := begin(r, b, b)
	if err != nil {
		return nil, err
	}
	start, now := time.Now(), time.Duration(0)
	for i, s := range sequence {
		now += time.Duration(s.ticks) * tick
		time.Sleep(time.Until(start.Add(now)))
		if difference, failed = c.step(i, s.step, now); difference != nil || failed != nil || c.hidden {
			break
		}
		if time.Since(start)-now > late {
			return nil, errLate
		}
	}
	if difference != nil && time.Since(start)-now > late {
		return nil, errLate
	}
	return difference, failed
}

// Mappings, filters' memories and connections end in the model when they end in
// the kernel: in real seconds, so with few sequences, each box in a network of
// its own.
func TestKernelExpiry(t *testing.T) {
	const sequences = 3
	for n, b := range []middlebox.Behaviour{
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterEndpointIndependent},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, TCPIdle: longTimer},
		{Mapping: middlebox.MapAddressDependent, Filtering: middlebox.FilterAddressDependent},
		{Mapping: middlebox.MapAddressAndPortDependent, Filtering: middlebox.FilterEndpointIndependent},
		{Mapping: middlebox.MapAddressAndPortDependent, Filtering: middlebox.FilterAddressAndPortDependent, Refresh: middlebox.RefreshOutbound},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, Refresh: middlebox.RefreshOutbound},
		{Filtering: middlebox.FilterAddressAndPortDependent, TCPIdle: longTimer},
		{Filtering: middlebox.FilterAddressDependent},
	} {
		b.UDPTimeout, b.TCPTransitory, b.TCPEstablished = shortTimer, shortTimer, longTimer
		t.Run(fmt.Sprintf("%s %s", name(b), b.Refresh), func(t *testing.T) {
			t.Parallel()
			addresses := 1
			if b.Mapping == middlebox.NoMapping {
				addresses = 0
			}
			r := newRig(t, b.Translates(), addresses)
			pin(t)
			compared := 0
			for seed := 0; compared < sequences && seed < 10*sequences; seed++ {
				sequence := ageing(r, b).Example(seed + 1000*n)
				difference, err := age(r, b, sequence)
				if errors.Is(err, errLate) || errors.Is(err, errLost) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				compared++
				if difference != nil {
					r.count.differences++
					t.Errorf("%v: %v", sequence, difference)
				}
			}
			if compared < sequences && os.Getenv("GAUNTLET_NO_SKIP") == "1" {
				t.Fatalf("the machine was in time for %d of %d sequences", compared, sequences)
			} else if compared < sequences {
				t.Skipf("the machine was in time for %d of %d sequences", compared, sequences)
			}
			t.Log(r.count)
			total.add(r.count)
		})
	}
}

func (l later) String() string { return fmt.Sprintf("+%v %v", time.Duration(l.ticks)*tick, l.step) }
