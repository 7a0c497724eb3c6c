package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// patience bounds the wait for what must happen. It is no part of any
// measurement: a machine that is busy for long makes it fail, not lie.
const patience = 15 * time.Second

// packet is a packet that is followed from its sending on.
type packet struct {
	watch   *Watch
	number  uint64
	isError bool          // it is an ICMP error, which quotes the number
	arrived chan struct{} // closed at the first arrival
	fated   chan struct{} // closed at the first event of any kind

	mu sync.Mutex // guards what follows
	fate
}

// fate is all that happened to a packet.
type fate struct {
	at      receiver       // where it arrived, nil if it did not
	from    netip.AddrPort // its source when it arrived
	about   icmpError      // of an ICMP error, what it was when it arrived
	dropped *Drop          // by a rule that logs
	refusal string         // what the sender got for it, a reset or an ICMP error; "" for nothing
}

// receiver is where packets arrive.
type receiver interface {
	at() netip.AddrPort
}

func (f fate) refused() bool { return f.refusal != "" }

// vanished says that a packet left no trace.
func (f fate) vanished() bool { return f.at == nil && f.dropped == nil && !f.refused() }

func (f fate) String() string {
	switch {
	case f.at != nil:
		return fmt.Sprintf("arrived from %v", f.from)
	case f.dropped != nil && f.refused():
		return fmt.Sprintf("refused by rule %s of %s", f.dropped.Rule, f.dropped.Box)
	case f.dropped != nil:
		return fmt.Sprintf("dropped by rule %s of %s", f.dropped.Rule, f.dropped.Box)
	case f.refused():
		return "answered with " + f.refusal
	}
	return "vanished without a trace"
}

func (p *packet) payload() []byte {
	return binary.BigEndian.AppendUint64([]byte(payloadWord), p.number)
}

func (p *packet) arrive(at receiver, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.first()
		p.at, p.from = at, from
		close(p.arrived)
	}
}

func (p *packet) drop(d Drop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first()
	p.dropped = &d
}

// quoted is arrive of an ICMP error.
func (p *packet) quoted(at receiver, sender netip.Addr, e icmpError) {
	p.mu.Lock()
	if p.fate.at == nil {
		e.payload = nil // is that of the queue
		p.about = e
	}
	p.mu.Unlock()
	p.arrive(at, netip.AddrPortFrom(sender, 0))
}

func (p *packet) refuse(with string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first()
	p.refusal = with
}

// first is called before each event, with mu held.
func (p *packet) first() {
	if p.vanished() {
		close(p.fated)
	}
}

// known returns what has happened to the packet so far.
func (p *packet) known() fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fate
}

// await waits for an event, which must come. That a packet arrives is not waited
// for once it was dropped.
func (p *packet) await(ctx context.Context, event <-chan struct{}) (fate, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	fated := p.fated
	for {
		select {
		case <-event:
			return p.known(), nil
		case <-fated:
			fated = nil
			if f := p.known(); event == p.arrived && f.at == nil && f.dropped != nil {
				return fate{}, fmt.Errorf("a packet that must arrive was %v", f)
			}
		case <-ctx.Done():
			return fate{}, context.Cause(ctx)
		case <-limit.C:
			return fate{}, fmt.Errorf("after %v, a packet that must arrive has %v", patience, p.known())
		}
	}
}
