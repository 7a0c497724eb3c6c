package model

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// Time in the tests of expiry: packets are due at multiples of tick, so that
// none comes near the end of a timer, which is of whole seconds, unless the
// machine is late. What the kernel saw within near of the end of a timer says
// nothing.
const (
	tick       = 600 * time.Millisecond
	near       = 120 * time.Millisecond
	shortTimer = time.Second
	longTimer  = 2 * time.Second
)

// later is a step after some ticks.
type later struct {
	step
	ticks int
}

// Numbers of segments.
const (
	synSegment = iota
	ackSegment
	synAckSegment
)

// handshakes begin a sequence: nothing, a connection from inside, and one from
// outside to the mapping that the first has made.
var handshakes = [][]step{
	{},
	{{kind: out, tcp: true}, {kind: answer, tcp: true, flags: synAckSegment}, {kind: out, tcp: true, flags: ackSegment}},
	{
		{kind: out, tcp: true}, {kind: in, tcp: true, far: 1},
		{kind: out, tcp: true, flags: synAckSegment, far: 1}, {kind: in, tcp: true, flags: ackSegment, far: 1},
	},
}

// streams are sequences of UDP flows, in which an answer comes in after a pause
// that only a stream outlives, and after one that none does.
var streams = [][]later{
	{{step{kind: out}, 0}, {step{kind: answer}, 2}},
	{{step{kind: out}, 0}, {step{kind: answer}, 1}, {step{kind: answer}, 2}},
	{
		{step{kind: out}, 0}, {step{kind: answer}, 1}, {step{kind: out}, 1}, {step{kind: out}, 1}, {step{kind: out}, 1},
		{step{kind: answer}, 2}, {step{kind: answer}, 3}, {step{kind: answer}, 4},
	},
	{
		{step{kind: out}, 0}, {step{kind: out}, 1}, {step{kind: out}, 1}, {step{kind: out}, 1}, {step{kind: out}, 1},
		{step{kind: answer}, 1}, {step{kind: answer}, 2},
	},
}

// ageing draws a sequence that takes up to some seconds.
func ageing(r *rig, b middlebox.Behaviour) *rapid.Generator[[]later] {
	mixed := steps(r, b).Filter(func(list []step) bool { return len(list) >= 4 })
	alone := conversation()
	return rapid.Custom(func(t *rapid.T) (list []later) {
		begun := rapid.SampledFrom(append(handshakes[1:], handshakes...)).Draw(t, "handshake")
		for _, s := range begun {
			list = append(list, later{s, 0})
		}
		packets := mixed
		if len(begun) > 0 {
			packets = alone
		}
		for _, s := range packets.Draw(t, "packets") {
			list = append(list, later{s, rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "ticks")})
		}
		return list[:min(len(list), 14)]
	})
}

// ending says whether a timer ends within a time.
func (b *Box) ending(from, to time.Duration) bool {
	within := func(end time.Duration) bool { return from <= end && end <= to }
	for _, m := range b.mappings {
		if within(m.ends) || m.closes > 0 && within(m.closes) {
			return true
		}
	}
	for _, end := range b.contacted {
		if within(end) {
			return true
		}
	}
	for _, s := range b.sessions { // when it may become a stream
		if b.behaviour.UDPUnreplied > 0 && within(s.began+middlebox.UDPStream) {
			return true
		}
	}
	cost := time.Second / time.Duration(max(1, b.behaviour.UDPRate))
	for _, u := range b.rates { // when there is enough for one more
		if u.filled < cost && within(u.last+cost-u.filled) {
			return true
		}
	}
	for _, of := range []map[flowKey]*connection{b.tcp.inside, b.tcp.external} {
		for _, c := range of {
			if within(c.ends) {
				return true
			}
		}
	}
	return false
}

// aged is what of a sequence was compared: the packets after its first tick,
// and those of established connections among them.
type aged struct{ packets, established int }

// age runs a sequence through kernel and model in real time, until a packet
// took so long, or came so near the end of a timer, that nobody knows on which
// side of that the kernel saw it.
func age(r *rig, b middlebox.Behaviour, sequence []later) (done aged, difference error, failed error) {
	c, err := begin(r, b, b)
	if err != nil {
		return done, nil, err
	}
	start, due := time.Now(), time.Duration(0)
	for i, s := range sequence {
		due += time.Duration(s.ticks) * tick
		time.Sleep(time.Until(start.Add(due)))
		sent := time.Since(start)
		established := c.established()
		doubt := c.box.ending(sent-near, sent+near)
		difference, failed = c.step(i, s.step, sent)
		if took := time.Since(start) - sent; doubt || took > near/2 {
			return done, nil, nil
		}
		if difference != nil || failed != nil || c.hidden {
			break
		}
		if due > 0 {
			done.packets++
			if s.tcp && established {
				done.established++
			}
		}
	}
	return done, difference, failed
}

// established says whether a connection is, or was when it ended in silence.
func (c *comparison) established() bool {
	for _, n := range c.box.tcp.inside {
		if n.phase == established {
			return true
		}
	}
	return false
}

// Mappings, filters' memories and connections end in the model when they end in
// the kernel: in real seconds, so with few sequences, each box in a network of
// its own. A busy machine takes more of them, since less of each is sure.
func TestKernelExpiry(t *testing.T) {
	const (
		packets     = 20 // at least, after time has passed
		established = 4  // of them with an established connection
		most        = 80 // sequences
	)
	for n, b := range []middlebox.Behaviour{
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterEndpointIndependent},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, TCPIdle: longTimer},
		{Mapping: middlebox.MapAddressDependent, Filtering: middlebox.FilterAddressDependent},
		{Mapping: middlebox.MapAddressAndPortDependent, Filtering: middlebox.FilterEndpointIndependent},
		{Mapping: middlebox.MapAddressAndPortDependent, Filtering: middlebox.FilterAddressAndPortDependent, Refresh: middlebox.RefreshOutbound},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, Refresh: middlebox.RefreshOutbound},
		{Filtering: middlebox.FilterAddressAndPortDependent, TCPIdle: longTimer},
		{Filtering: middlebox.FilterAddressDependent},
		{Mapping: middlebox.MapEndpointIndependent, TCPFiltering: middlebox.FilterEndpointIndependent},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, TCPFiltering: middlebox.FilterAddressDependent},
		{Mapping: middlebox.MapAddressAndPortDependent, Filtering: middlebox.FilterAddressAndPortDependent, TCPFiltering: middlebox.FilterEndpointIndependent},
		{Filtering: middlebox.FilterAddressAndPortDependent, TCPFiltering: middlebox.FilterAddressDependent},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent, UDPUnreplied: shortTimer},
		{Filtering: middlebox.FilterAddressAndPortDependent, UDPUnreplied: shortTimer},
		{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, UDPRate: 1},
		{Filtering: middlebox.FilterAddressAndPortDependent, UDPRate: 1},
	} {
		b.UDPTimeout, b.TCPTransitory, b.TCPEstablished = shortTimer, shortTimer, longTimer
		if b.UDPUnreplied > 0 {
			b.UDPTimeout = longTimer
		}
		t.Run(fmt.Sprintf("%s TCP %s %s", name(b), b.FilteringOf(middlebox.TCP), b.Refresh), func(t *testing.T) {
			t.Parallel()
			addresses := 1
			if b.Mapping == middlebox.NoMapping {
				addresses = 0
			}
			r := newRig(t, b.Translates(), addresses)
			pin(t)
			var done aged
			seed := 0
			for ; (done.packets < packets || done.established < established) && seed < most; seed++ {
				sequence := ageing(r, b).Example(seed + 1000*n)
				if b.UDPUnreplied > 0 && seed < len(streams) {
					sequence = streams[seed]
				}
				part, difference, err := age(r, b, sequence)
				if errors.Is(err, errLost) {
					r.count.retried++
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				done.packets += part.packets
				done.established += part.established
				if difference != nil {
					r.count.differences++
					t.Errorf("%v: %v", sequence, difference)
				}
			}
			if done.packets < packets || done.established < established {
				t.Errorf("in %d sequences, %+v was sure; want %d packets, %d of them with an established connection", seed, done, packets, established)
			}
			t.Logf("%d sequences, %+v; %v", seed, done, r.count)
			if why := r.count.tooManyRetried(); why != "" {
				t.Error(why)
			}
			total.add(r.count)
		})
	}
}

func (l later) String() string { return fmt.Sprintf("+%v %v", time.Duration(l.ticks)*tick, l.step) }
