package probe

import (
	"context"
	"errors"
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

// Lifetimes reads from a box's connection tracking how long a new UDP flow and
// an established TCP connection are going to live without a packet, in whole
// seconds, and sets UDPTimeout and TCPEstablished. What doesn't pass is left
// alone.
func Lifetimes(ctx context.Context, w *Watch, s Subject, box *ns.Handle, m *Properties) error {
	p := begin(ctx, w, s)
	if p.udpPasses {
		from := p.udp(p.LAN[0])
		p.observe(from, p.udp(p.WAN[0]))
		m.UDPTimeout = p.remaining(box, unix.IPPROTO_UDP, from.at())
	}
	if m.TCPFiltering != "" { // which only TCP that passes gives
		if l := p.listen(p.WAN[0], 0); p.err == nil {
			defer l.close()
			port := p.watch.ports(1)
			if d, _ := p.connect(p.LAN[0], port, l.local); p.err == nil {
				m.TCPEstablished = p.remaining(box, unix.IPPROTO_TCP, netip.AddrPortFrom(p.LAN[0].Addr, port))
				p.fail(d.close())
			}
		}
	}
	if m.TCPFiltering != "" && p.err == nil {
		m.TCPTransitory = p.transitory(box)
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("read lifetime of flows: %w", err)
	}
	return nil
}

// transitory has a SYN arrive where nobody answers, and returns how long its
// connection is going to live.
func (p *prober) transitory(box *ns.Handle) int {
	silent := netip.AddrPortFrom(p.WAN[0].Addr, p.watch.ports(1))
	var fd int
	err := p.WAN[0].Space.Do(func() (err error) {
		if fd, err = tcpSocket(silent); err != nil {
			return err
		}
		nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}} // of what comes is let to it
		err = errors.Join(
			unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}),
			unix.Listen(fd, 1))
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
		return err
	})
	if err != nil {
		p.fail(fmt.Errorf("listen without answering at %v: %w", silent, err))
		return 0
	}
	defer func() { p.fail(unix.Close(fd)) }()
	from := netip.AddrPortFrom(p.LAN[0].Addr, p.watch.ports(1))
	d, err := dial(p.LAN[0], from, silent)
	if err != nil {
		p.fail(fmt.Errorf("connect from %v to %v: %w", from, silent, err))
		return 0
	}
	if p.udpPasses {
		p.fail(p.fence(p.ctx))
	}
	seconds := p.remaining(box, unix.IPPROTO_TCP, from)
	p.fail(d.close())
	return seconds
}

// remaining returns from how many seconds a flow's timer has begun to count
// down. The kernel shows what is left in whole seconds.
func (p *prober) remaining(box *ns.Handle, protocol uint8, inside netip.AddrPort) int {
	p.until(time.Now().Add(countdown))
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
			return int(f.TimeOut) + 1
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

func (p *prober) idle(set time.Duration) string {
	l := p.listen(p.WAN[0], p.servicePort())
	if p.err != nil {
		return ""
	}
	defer l.close()
	begun := time.Now()
	port := p.watch.ports(2)
	silent, _ := p.connect(p.LAN[0], port, l.local)
	if p.err != nil {
		return ""
	}
	defer func() { p.fail(silent.close()) }()
	busy, _ := p.connect(p.LAN[0], port+1, l.local)
	if p.err != nil {
		return ""
	}
	defer func() { p.fail(busy.close()) }()
	for _, part := range []float64{0.5, 1, 1.5} {
		p.until(begun.Add(time.Duration(part * float64(set))))
		if !p.carries(busy, port+1) {
			return ""
		}
	}
	if p.carries(silent, port) {
		return kept
	}
	return cut
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
