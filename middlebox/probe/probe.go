// Package probe measures a middlebox, or a chain of them, with real sockets:
// from hosts inside to hosts outside and back, in the manner of RFC 5780, and
// in ways that a STUN test does not know.
//
// Every packet is followed to its end: it arrives at a socket, a rule's log
// message has it, or an ICMP error for it comes back. That a packet was
// dropped is concluded from the log, or from a fence: packets sent after it on
// the same way, in both directions, that have come back. It is never concluded
// from a time in which nothing happened.
package probe

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// Subject is what is measured, and from where. Nobody else may send through
// the boxes meanwhile.
type Subject struct {
	// LAN are two hosts inside, in namespaces of their own: a packet that comes
	// back to the host that sent it would be taken for a forged one.
	LAN [2]Host
	// WAN are three addresses outside, which may be one namespace's.
	WAN [3]Host
	// External are the addresses that stand for those inside; none if nothing
	// is translated.
	External []netip.Addr
	// Boxes are the names of the boxes between, as Watch knows them.
	Boxes []string
	// Denied are the hosts outside of which is measured whether they are out of
	// reach. They need not answer.
	Denied []Target
	// Services are tried where their protocol doesn't pass otherwise.
	Services []middlebox.Service
	// Pace is the least time between two packets of one side; 0 is no limit. A
	// box that limits rates needs it.
	Pace time.Duration
	// Mapped is called when a port mapping was answered, and returns when the box
	// keeps to it; nil is that it does so at once.
	Mapped func() error
}

// Target is a host outside that a box may keep out of reach.
type Target struct {
	Name  string
	Addr  netip.Addr
	Ports []uint16   // to be tried besides others
	Space *ns.Handle // of the host, if it can be measured from there too; else nil
}

// prober is one measurement. The first error ends it: all methods then do
// nothing.
type prober struct {
	Subject
	ctx   context.Context
	watch *Watch
	err   error

	udpPasses bool
	rewritten bool    // a packet got in with another source than its sender's
	inside    *socket // of the fence
	outside   *socket
	sockets   []*socket
	stations  map[netip.Addr]*station
	points    []*point
	unpin     func() // lets go of the processor
	nonce     [pcpNonce]byte
}

// begin makes a measurement, all of which is sent on one processor; the caller
// must call end, from the same goroutine.
func begin(ctx context.Context, w *Watch, s Subject) *prober {
	p := &prober{Subject: s, ctx: ctx, watch: w}
	p.unpin, p.err = pin()
	p.inside, p.outside = p.udp(p.LAN[0]), p.udp(p.WAN[0])
	if first := p.send(p.inside, p.outside.at()); p.err == nil {
		f, err := first.await(ctx, first.fated)
		if err != nil {
			p.fail(fmt.Errorf("from %v to %v: %w", p.inside.at(), p.outside.at(), err))
		}
		p.udpPasses = f.at != nil
	}
	return p
}

// end closes all sockets and returns the error.
func (p *prober) end() error {
	if p.unpin != nil {
		p.unpin()
	}
	for _, s := range p.sockets {
		s.close()
	}
	for _, e := range p.points {
		p.fail(e.close())
	}
	for _, s := range p.stations {
		s.close()
	}
	return p.err
}

func (p *prober) fail(err error) {
	if p.err == nil && err != nil {
		p.err = err
	}
}

// udp opens a socket.
func (p *prober) udp(at Host) *socket { return p.udpAt(at, 0) }

func (p *prober) udpAt(at Host, port uint16) *socket {
	if p.err != nil {
		return nil
	}
	s, err := p.watch.udp(at, port)
	if err != nil {
		p.fail(err)
		return nil
	}
	p.sockets = append(p.sockets, s)
	return s
}

// at is the socket's address; that of none is the zero one.
func (s *socket) at() netip.AddrPort {
	if s == nil {
		return netip.AddrPort{}
	}
	return s.local
}

func (p *prober) send(from *socket, to netip.AddrPort) *packet {
	if p.err != nil {
		return nil
	}
	sent, err := p.paced(p.ctx, from, to)
	p.fail(err)
	return sent
}

// paced sends a packet no sooner than the pace allows.
func (p *prober) paced(ctx context.Context, from *socket, to netip.AddrPort) (*packet, error) {
	if p.Pace > 0 {
		pause := time.NewTimer(p.Pace)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return from.send(to)
}

// observe sends a packet that must arrive, and returns the address that it
// arrives from, as STUN does.
func (p *prober) observe(from, to *socket) netip.AddrPort {
	sent := p.send(from, to.at())
	if p.err != nil {
		return netip.AddrPort{}
	}
	f, err := sent.await(p.ctx, sent.arrived)
	if err != nil {
		p.fail(fmt.Errorf("from %v to %v: %w", from.at(), to.at(), err))
	}
	return f.from
}

// fate sends a packet and returns all that happened to it.
func (p *prober) fate(from *socket, to netip.AddrPort) fate {
	return p.becomes(p.send(from, to), from, to)
}

// becomes returns all that happened to a packet that was sent.
func (p *prober) becomes(sent *packet, from receiver, to netip.AddrPort) fate {
	for round := 0; p.err == nil; round++ {
		if p.udpPasses {
			p.fail(p.fence(p.ctx))
		} else {
			p.fail(p.ping())
		}
		if p.err == nil {
			p.fail(p.watch.sync(p.ctx))
			if s, ok := from.(*socket); ok {
				p.fail(s.refusals())
			}
			p.fail(p.drain())
		}
		// What left no trace until the fence has come back has vanished. There
		// is a second fence since a kernel with several processors may let the
		// first one overtake.
		if f := sent.known(); !f.vanished() || round == 1 {
			return f
		}
	}
	return fate{}
}

// drain has all sockets report what has arrived.
func (p *prober) drain() error {
	for _, s := range p.sockets {
		if err := s.drain(); err != nil {
			return fmt.Errorf("read what arrived at %v: %w", s.local, err)
		}
	}
	for _, s := range p.stations {
		if err := s.drain(); err != nil {
			return err
		}
	}
	return nil
}

// fence sends a packet each way and returns when both have arrived: what was
// sent before on the same ways is not on its way any more.
func (p *prober) fence(ctx context.Context) error {
	for try := 1; ; try++ {
		out, err := p.paced(ctx, p.inside, p.outside.local)
		if err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		f, err := out.await(ctx, out.arrived)
		if err != nil {
			return fmt.Errorf("fence outward: %w", err)
		}
		in, err := p.paced(ctx, p.outside, f.from)
		if err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		// With a short timer and on a busy machine, the mapping may have ended
		// between the two.
		if f, err = in.await(ctx, in.fated); err != nil || f.at == nil && try == fenceTries {
			return fmt.Errorf("fence inward: %v: %w", f, cmp.Or(err, errFence))
		}
		if f.at != nil {
			return nil
		}
	}
}

// fenceTries is how often a fence is sent, and errFence why it ends.
const fenceTries = 5

var errFence = fmt.Errorf("stopped %d times in a row", fenceTries)

// barrier returns the fence for attempts to connect, nil if UDP is stopped.
func (p *prober) barrier() func(context.Context) error {
	if !p.udpPasses {
		return nil
	}
	return p.fence
}

// reaches says whether a packet from outside to an address arrives at a socket
// inside.
func (p *prober) reaches(from *socket, to netip.AddrPort, at *socket) bool {
	return p.reached(p.fate(from, to), from, to, at)
}

// reached says whether what was sent has arrived where it alone may.
func (p *prober) reached(f fate, from receiver, to netip.AddrPort, at receiver) bool {
	if f.at != nil && f.at != at {
		p.fail(fmt.Errorf("from %v to %v: arrived at %v, which is not %v", from.at(), to, f.at.at(), at.at()))
	}
	if p.err != nil || f.at != at {
		return false
	}
	p.rewritten = p.rewritten || f.from != from.at()
	return true
}
