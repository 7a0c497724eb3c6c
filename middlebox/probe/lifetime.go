package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// countdown is how old a flow gets before its timer is read: older than a tick
// of the kernel's clock, so that some of the first second is gone.
const countdown = 20 * time.Millisecond

// Lifetimes reads from a box's connection tracking how long a new UDP flow, an
// established TCP connection and one whose SYN has no answer are going to live
// without a packet, in whole seconds, and sets UDPTimeout, TCPEstablished and
// TCPTransitory. What doesn't pass is left alone.
func Lifetimes(ctx context.Context, w *Watch, s Subject, box *ns.Handle, m *Properties) error {
	p := begin(ctx, w, s)
	if p.udpPasses {
		m.UDPTimeout = p.lifetime(box, unix.IPPROTO_UDP, func() (netip.AddrPort, time.Time, time.Time) {
			f := p.fresh()
			return f.inside.at(), f.earliest, f.made
		})
	}
	if m.TCPFiltering != "" { // which only TCP that passes gives
		of := func(how phase) int {
			return p.lifetime(box, unix.IPPROTO_TCP, func() (netip.AddrPort, time.Time, time.Time) {
				c := p.connectionTo(p.LAN[0], p.WAN[0], how)
				return c.inside.at(), c.earliest, c.made
			})
		}
		m.TCPEstablished, m.TCPTransitory = of(established), of(halfOpen)
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("read lifetime of flows: %w", err)
	}
	return nil
}

// pace is how often a flow has a packet each way until it is a stream: more often
// than the shortest timer, a second, needs.
const pace = 200 * time.Millisecond

// Stream reads from a box's connection tracking how long a UDP flow is going to
// live that is a stream, and sets UDPTimeout; what that was, of a new flow, is
// UDPUnreplied. It takes as long as a flow takes to be one.
func Stream(ctx context.Context, w *Watch, s Subject, box *ns.Handle, m *Properties) error {
	p := begin(ctx, w, s)
	m.UDPUnreplied = m.UDPTimeout
	m.UDPTimeout = p.lifetime(box, unix.IPPROTO_UDP, func() (netip.AddrPort, time.Time, time.Time) {
		inside, outside := p.udp(p.LAN[0]), p.udp(p.WAN[0])
		external := p.observe(inside, outside)
		for began := time.Now(); p.err == nil && time.Since(began) <= middlebox.UDPStream+pace; p.until(time.Now().Add(pace)) {
			if !p.reaches(outside, external, inside) && p.err == nil {
				p.fail(fmt.Errorf("from %v to %v: an answer was lost", outside.at(), external))
			}
			p.observe(inside, outside)
		}
		earliest := time.Now()
		p.observe(inside, outside)
		return inside.at(), earliest, time.Now()
	})
	if err := p.end(); err != nil {
		return fmt.Errorf("read lifetime of a stream: %w", err)
	}
	return nil
}

// lifetime returns from how many seconds the timer of a new flow has begun to
// count down. It makes another one where the machine was too busy to say.
func (p *prober) lifetime(box *ns.Handle, protocol uint8, flow func() (inside netip.AddrPort, earliest, made time.Time)) int {
	for try := 1; p.err == nil; try++ {
		inside, earliest, made := flow()
		p.until(made.Add(countdown))
		youngest := time.Since(made)
		shown := p.remaining(box, protocol, inside)
		if seconds, ok := begunFrom(shown, youngest, time.Since(earliest)); ok && p.err == nil {
			return seconds
		} else if try == timerTries && p.err == nil {
			p.fail(fmt.Errorf("%d times in a row, the timer of a flow was read too late", try))
		}
	}
	return 0
}

// tick is the longest of the kernel's clock, CONFIG_HZ_100.
const tick = 10 * time.Millisecond

// begunFrom returns the whole seconds that a timer counts down from, which shows
// what is left in whole seconds, rounded down, at an age between two, give or
// take a tick. It is false if several numbers fit.
func begunFrom(shown int, youngest, oldest time.Duration) (int, bool) {
	youngest, oldest = youngest-tick, oldest+tick
	least := shown + int((youngest+time.Second-1)/time.Second)
	most := shown + 1 + int((oldest-1)/time.Second) // less than shown + 1 s + oldest
	return least, least == most
}

// remaining returns what is left of a flow's timer, as the kernel shows it.
func (p *prober) remaining(box *ns.Handle, protocol uint8, inside netip.AddrPort) int {
	if p.err != nil {
		return 0
	}
	var handle *netlink.Handle
	err := box.Do(func() (err error) {
		handle, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		p.fail(err)
		return 0
	}
	defer handle.Close()
	flows, err := handle.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		p.fail(fmt.Errorf("list flows: %w", err))
		return 0
	}
	for _, f := range flows {
		if f.Forward.Protocol == protocol && f.Forward.SrcIP.Equal(net.IP(inside.Addr().AsSlice())) && f.Forward.SrcPort == inside.Port() {
			return int(f.TimeOut)
		}
	}
	p.fail(fmt.Errorf("no flow from %v", inside))
	return 0
}

// Idle measures whether a TCP connection that is silent for longer than the
// given time is cut off, and one that isn't silent goes on, on boxes that were
// told to cut after that time. It takes one and a half times that.
func Idle(ctx context.Context, w *Watch, s Subject, set time.Duration) (string, error) {
	p := begin(ctx, w, s)
	word := p.idle(set)
	if err := p.end(); err != nil {
		return "", fmt.Errorf("measure idle TCP connections: %w", err)
	}
	return word, nil
}

// idle tries once more where the machine was too busy for the busy connection to
// be so.
func (p *prober) idle(set time.Duration) string {
	for try := 1; p.err == nil; try++ {
		if word, inTime := p.idleOnce(set); inTime {
			return word
		} else if try == timerTries {
			p.fail(fmt.Errorf("%d times in a row, a connection was left silent for too long for a timer of %v", try, set))
		}
	}
	return ""
}

// idleOnce says whether nothing was too late.
func (p *prober) idleOnce(set time.Duration) (word string, inTime bool) {
	l := p.listen(p.WAN[0], p.servicePort())
	if p.err != nil {
		return "", true
	}
	defer l.close()
	begun := time.Now()
	port := p.watch.ports(2)
	silent, _ := p.connect(p.LAN[0], port, l.local)
	if p.err != nil {
		return "", true
	}
	defer func() { p.fail(silent.close()) }()
	busy, _ := p.connect(p.LAN[0], port+1, l.local)
	if p.err != nil {
		return "", true
	}
	defer func() { p.fail(busy.close()) }()
	last := begun
	for _, part := range []float64{0.5, 1, 1.5} {
		p.until(begun.Add(time.Duration(part * float64(set))))
		carried := p.carries(busy, port+1)
		if !carried && p.err == nil && float64(time.Since(last)) > (1-margin)*float64(set) {
			return "", false
		}
		if !carried {
			return cutBusy, true
		}
		last = time.Now()
	}
	if p.carries(silent, port) {
		return kept, true
	}
	return cut, true
}

// servicePort is a TCP port outside that can be reached: any, or one of the
// services.
func (p *prober) servicePort() uint16 {
	for _, s := range p.Services {
		if s.Protocol == middlebox.TCP && s.Port != 0 {
			return s.Port
		}
	}
	return 0
}

// carries says whether a byte gets through a connection: it is acknowledged,
// or dropped by a rule.
func (p *prober) carries(d *dialled, port uint16) bool {
	if p.err != nil {
		return false
	}
	s := p.watch.follow(netip.AddrPortFrom(p.LAN[0].Addr, port))
	defer s.forget()
	if _, err := d.Write([]byte{0}); err != nil {
		p.fail(fmt.Errorf("write to a connection: %w", err))
		return false
	}
	for deadline := time.Now().Add(patience); p.err == nil; p.until(time.Now().Add(time.Millisecond)) {
		queued := -1
		raw, err := d.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		}
		switch p.fail(err); {
		case queued == 0:
			return true
		case s.known() != nil:
			return false
		case time.Now().After(deadline):
			p.fail(fmt.Errorf("a byte was neither acknowledged nor dropped in %v", patience))
		}
	}
	return false
}
