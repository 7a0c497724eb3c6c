package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/judge"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/topo"
)

// A canary is three datagrams: one may be lost on a link that loses, three
// rarely are. By their sizes, from canarySize on, each is told from all others
// of a scenario, up to what an Ethernet frame holds.
const (
	canaryCount = 3
	canarySize  = 201 // bytes of payload
	mostSizes   = 1200
)

// sendCanaries sends a canary from a host behind each box, through all boxes
// before that host. Of a box that only hosts behind other boxes stand behind,
// it is one of theirs.
func (r *single) sendCanaries() error {
	sent := map[string]bool{} // boxes
	for _, h := range r.internet.Plan.Hosts {
		if sent[h.Behind] || h.Behind == "" {
			continue
		}
		sent[h.Behind] = true
		if err := r.sendCanary(judge.Canary{Host: h.Name}); err != nil {
			return err
		}
	}
	return nil
}

// sendCanaryThrough sends a canary through a box that a step, counted from 1,
// has changed, from the host with the fewest boxes before that one. A box that
// nobody is behind has none.
func (r *single) sendCanaryThrough(box string, step int) error {
	nearest, between := "", 0
	for _, h := range r.internet.Plan.Hosts {
		if at := slices.Index(r.internet.Plan.Chain(h.Name), box); at >= 0 && (nearest == "" || at < between) {
			nearest, between = h.Name, at
		}
	}
	if nearest == "" {
		return nil
	}
	return r.sendCanary(judge.Canary{Host: nearest, Changed: box, Step: step})
}

// nobody is an address on the internet that neither a host has nor a box is
// given, which go out from the other end: the last.
func nobody(p *topo.Plan) netip.Addr {
	taken := map[netip.Addr]bool{}
	for _, h := range p.Hosts {
		for _, a := range h.Addrs {
			taken[a] = true
		}
	}
	for _, b := range p.Boxes {
		for _, a := range b.WAN {
			taken[a] = true
		}
	}
	a := p.Internet.Addr
	for next := a.Next(); p.Internet.Prefix.Contains(next.Next()); next = next.Next() { // but the broadcast address
		if !taken[next] {
			a = next
		}
	}
	return a
}

// sendCanary sends a canary from its host. Its socket is not connected, so that a
// router's refusal of one datagram isn't reported by the next.
func (r *single) sendCanary(c judge.Canary) error {
	if len(r.canaries)*canaryCount >= mostSizes {
		return fmt.Errorf("canary from %s: expected no more than %d boxes and changes of boxes in a scenario, each of which has a canary", c.Host, mostSizes/canaryCount)
	}
	c.Boxes, c.Sent = r.internet.Plan.Chain(c.Host), time.Now()
	c.Destination = netip.AddrPortFrom(nobody(r.internet.Plan), judge.CanaryPort)
	for n := range canaryCount {
		c.Sizes = append(c.Sizes, canarySize+len(r.canaries)*canaryCount+n)
	}
	host, _ := r.internet.Plan.Host(c.Host)
	conn, err := r.listen(c.Host, host.Addrs[0])
	if err != nil {
		return fmt.Errorf("canary: %w", err)
	}
	c.Source = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, size := range c.Sizes {
		_, wrong := conn.WriteToUDPAddrPort(make([]byte, size), c.Destination)
		err = errors.Join(err, wrong)
	}
	r.canaries = append(r.canaries, c)
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("canary from %s: %w", c.Host, err)
	}
	return nil
}

// controlLimit bounds the wait for a datagram over the path that is cut: many
// times what one takes through a box of this machine.
const controlLimit = 250 * time.Millisecond

// controlTries is how often the control is run where something of it could not
// be seen, such as a box that a busy machine measured wrong. What was seen and
// is wrong isn't tried again.
const controlTries = 3

// controlOnce runs the lab's own control scenario: an exchange over a direct
// path, and the same with the path cut.
func controlOnce(ctx context.Context, o Options) report.Control {
	s, err := scenario.Parse(judge.ControlFolder+".yaml", []byte(judge.ControlScenario))
	if err != nil {
		panic(err) // it is a constant
	}
	o.Hold, o.Containers, o.Built, o.Certified, o.Changed, o.Turned, o.RingBytes = nil, nil, nil, nil, nil, nil, 0
	for try := 1; ; try++ {
		one := &single{
			Scenario: s, options: o, tell: func(Event) {}, name: judge.ControlFolder,
			random: newRandom(o.Seed, s.ID, 0),
		}
		one.drive = one.driveControl
		checks := one.run(ctx).Checks
		unseen := slices.ContainsFunc(checks, func(c report.Check) bool { return c.Verdict == verdict.Inconclusive })
		if !unseen || try == controlTries || ctx.Err() != nil {
			return judge.CutControl(checks)
		}
	}
}

// driveControl drives the control scenario without any node.
func (r *single) driveControl(ctx context.Context, _ string) error {
	callee, err := r.listen("callee", netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	defer callee.Close()
	wait := defaultLimit
	for i := range r.Steps {
		st := &r.Steps[i]
		if st.Change != nil {
			if err := r.step(ctx, i); err != nil {
				return err
			}
			wait = controlLimit
			continue
		}
		d := r.planned[i][0]
		d.record.CallerBox, d.record.CalleeBox = r.internet.Label(d.Caller), r.internet.Label(d.Callee)
		payload := r.payload(st.Exchange.Payload)
		err := r.window(ctx, d, evidence.Exchange{Payload: int64(len(payload))}, defaultLimit, func(ctx context.Context) error {
			return r.datagram(ctx, d.Caller, callee, payload, wait)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// listen opens a UDP socket on an address of a host.
func (r *single) listen(host string, at netip.Addr) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := r.internet.Namespace(host).Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("socket of the lab at %s: %w", host, err)
	}
	return conn, nil
}

// datagram sends one from a host to a socket, and returns once it is there or
// the wait is over.
func (r *single) datagram(ctx context.Context, host string, to *net.UDPConn, payload []byte, wait time.Duration) error {
	h, _ := r.internet.Plan.Host("callee")
	port := to.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	from, err := r.listen(host, netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := from.WriteToUDPAddrPort(payload, netip.AddrPortFrom(h.Addrs[0], port)); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	to.SetReadDeadline(time.Now().Add(wait))
	defer context.AfterFunc(ctx, func() { to.SetReadDeadline(time.Now()) })()
	_, _, err = to.ReadFromUDPAddrPort(make([]byte, len(payload)+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // the wire shows it
	}
	return err
}
