package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// patience bounds the wait for a fence, which is sent again and again: the
// kernel throws packets away where others flood its queues.
const (
	patience = 20 * time.Second
	resend   = 250 * time.Millisecond
)

// errLost is that of a packet that no rule dropped and nobody got.
var errLost = errors.New("a packet vanished without a rule that dropped it")

// Ports of the endpoints. Hosts inside share theirs, so that they collide.
var (
	insidePorts  = []uint16{4000, 4001, 4003}
	outsidePorts = []uint16{5000, 5001}
)

// rig is a box in the kernel between sockets that the test holds:
//
//	internet -- s1, s2
//	    |
//	   box
//	    |
//	alice, anna
//
// A fence follows every packet on its way: an echo request (RFC 792) and its
// reply, which no box here stops. All is sent by one thread on one processor,
// whose queues keep the order, so that when the fence is back the packet has
// arrived or was dropped.
type rig struct {
	testing.TB
	plan    *topo.Plan
	net     *topo.Network
	loader  *middlebox.Loader
	inside  []socket // two hosts, each with all insidePorts
	outside []socket
	raws    []raw   // of all hosts, for TCP
	icmp    []raw   // of all hosts, if ears has opened them
	fences  []fence // from alice and anna to s1 and s2
	gone    map[string]uint64
	count   counts
}

// socket is a UDP socket of the kernel that never blocks.
type socket struct {
	fd    int
	local netip.AddrPort
}

// newRig builds it with a box of several external addresses. It needs the
// right to make namespaces; else the test is skipped, or fails if
// GAUNTLET_NO_SKIP is 1.
func newRig(t testing.TB, translates bool, addresses int) *rig {
	t.Helper()
	plan, err := topo.NewPlan(topo.Description{
		Boxes: []topo.BoxDescription{{Name: "box", Translates: translates, Addresses: addresses}},
		Hosts: []topo.HostDescription{{Name: "s1"}, {Name: "s2"}, {Name: "alice", Behind: "box"}, {Name: "anna", Behind: "box"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	network, err := topo.Build(t.Context(), plan)
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, plan: plan, net: network}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.loader, err = middlebox.NewLoader(network.Namespace("box")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.loader.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, host := range []string{"alice", "anna"} {
		r.inside = append(r.inside, r.open(host, insidePorts)...)
		r.raws = append(r.raws, r.raw(host, insidePorts))
	}
	for _, host := range []string{"s1", "s2"} {
		r.outside = append(r.outside, r.open(host, outsidePorts)...)
		r.raws = append(r.raws, r.raw(host, outsidePorts))
	}
	for _, from := range []string{"alice", "anna"} {
		for _, to := range []string{"s1", "s2"} {
			r.fences = append(r.fences, r.fence(from, to))
		}
	}
	return r
}

// pin keeps the test on one thread and that on one processor.
func pin(t testing.TB) {
	t.Helper()
	unpin, err := stay()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unpin)
}

// stay keeps the goroutine on one thread and that on one processor, until it
// calls what is returned, or ends.
func stay() (leave func(), err error) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	for i := range len(before) * 64 {
		if before.IsSet(i) {
			one.Set(i)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	return func() {
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with the goroutine
	}, nil
}

func (r *rig) addr(host string) netip.Addr {
	h, ok := r.plan.Host(host)
	if !ok {
		r.Fatalf("no host %s", host)
	}
	return h.Addrs[0]
}

func (r *rig) in(host string, f func() error) {
	r.Helper()
	if err := r.net.Namespace(host).Do(f); err != nil {
		r.Fatal(err)
	}
}

// open opens a socket at each of a host's ports.
func (r *rig) open(host string, ports []uint16) (list []socket) {
	r.Helper()
	a := r.addr(host)
	r.in(host, func() error {
		for _, port := range ports {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			r.Cleanup(func() { unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}); err != nil {
				return err
			}
			list = append(list, socket{fd, netip.AddrPortFrom(a, port)})
		}
		return nil
	})
	return list
}

// fence is an echo there and back.
type fence struct {
	conn     net.PacketConn
	from, to netip.Addr
	id       uint16
}

func (r *rig) fence(from, to string) fence {
	r.Helper()
	f := fence{from: r.addr(from), to: r.addr(to), id: uint16(len(r.fences) + 1)}
	r.in(from, func() (err error) {
		f.conn, err = net.ListenPacket("ip4:icmp", r.addr(from).String())
		return err
	})
	r.Cleanup(func() { f.conn.Close() })
	return f
}

// pass waits until an echo request has gone through and its reply has come
// back.
func (f fence) pass(sequence uint16) error {
	id := f.id
	request := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(request[4:], id)
	binary.BigEndian.PutUint16(request[6:], sequence)
	sum := uint32(8<<8) + uint32(id) + uint32(sequence)
	binary.BigEndian.PutUint16(request[2:], ^uint16(sum+sum>>16))
	var buf [128]byte
	for begun := time.Now(); time.Since(begun) < patience; {
		if _, err := f.conn.WriteTo(request, &net.IPAddr{IP: f.to.AsSlice()}); err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		if err := f.conn.SetReadDeadline(time.Now().Add(resend)); err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		for {
			n, _, err := f.conn.ReadFrom(buf[:])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("fence: %w", err)
			}
			if n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == sequence {
				return nil
			}
		}
	}
	return fmt.Errorf("fence: no answer in %v", patience)
}

// flush passes the fences that follow a packet on its way: to or from the
// outside host, and after a packet that turns around in the box first that of
// its sender, then those of the receivers it may have.
func (r *rig) flush(from, to netip.AddrPort, sequence uint16) error {
	first, then := []fence{}, []fence{}
	direct := false
	for _, f := range r.fences {
		switch {
		case f.to == from.Addr() || f.from == from.Addr() && f.to == to.Addr():
			first, direct = append(first, f), true
		case f.from == from.Addr():
			first = append(first, f)
		default:
			then = append(then, f)
		}
	}
	if direct {
		then = nil
	}
	for _, f := range append(first, then...) {
		if err := f.pass(sequence); err != nil {
			return err
		}
	}
	return nil
}

// seen is what the kernel did with a packet.
type seen struct {
	arrived bool
	at      netip.AddrPort
	from    netip.AddrPort
	dropped string // the rule, if it didn't arrive
}

// send sends a packet and says what became of it.
func (r *rig) send(from socket, to netip.AddrPort, sequence uint16) (seen, error) {
	payload := binary.BigEndian.AppendUint16([]byte("packet"), sequence)
	if err := unix.Sendto(from.fd, payload, 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return seen{}, fmt.Errorf("send to %v: %w", to, err)
	}
	if err := r.flush(from.local, to, sequence); err != nil {
		return seen{}, err
	}
	var out seen
	for _, s := range append(append([]socket{}, r.inside...), r.outside...) {
		var buf [64]byte
		n, sender, err := unix.Recvfrom(s.fd, buf[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return seen{}, fmt.Errorf("receive at %v: %w", s.local, err)
		}
		inet, ok := sender.(*unix.SockaddrInet4)
		if !ok || string(buf[:n]) != string(payload) || out.arrived {
			return seen{}, fmt.Errorf("%v got %q too, expected %q once", s.local, buf[:n], payload)
		}
		out = seen{arrived: true, at: s.local, from: netip.AddrPortFrom(netip.AddrFrom4(inet.Addr), uint16(inet.Port))}
	}
	var err error
	if !out.arrived {
		out.dropped, err = r.whoDropped()
	}
	return out, err
}

// whoDropped returns the one rule whose counter has moved by one.
func (r *rig) whoDropped() (rule string, err error) {
	counters, err := r.loader.Counters()
	if err != nil {
		return "", err
	}
	for name, c := range counters {
		switch c.Packets - r.gone[name] {
		case 0:
		case 1:
			if rule != "" {
				return "", fmt.Errorf("both %s and %s dropped a packet", rule, name)
			}
			rule = name
		default:
			return "", fmt.Errorf("%s dropped %d packets, not one", name, c.Packets-r.gone[name])
		}
		r.gone[name] = c.Packets
	}
	if rule == "" {
		return "", errLost
	}
	return rule, nil
}

// config is the box of the rig with a behaviour, for the model.
func (r *rig) config(b middlebox.Behaviour) Config {
	box, _ := r.plan.Box("box")
	return Config{Behaviour: b, WAN: box.WAN, LAN: box.LAN, Denied: map[string][]netip.Addr{"s2": {r.addr("s2")}}}
}

// behave gives the kernel's box a behaviour and no state.
func (r *rig) behave(b middlebox.Behaviour) error {
	c := r.config(b)
	rules, err := middlebox.Rules(middlebox.Box{
		Name: "box", Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: c.WAN, LANPrefix: c.LAN, Denied: c.Denied, LogGroup: 5,
	})
	if err != nil {
		return err
	}
	r.gone = map[string]uint64{}
	if err := r.loader.Load(rules); err != nil {
		return err
	}
	r.drain()
	return r.loader.FlushConntrack()
}

// drain throws away what a sequence that failed has left in the sockets.
func (r *rig) drain() {
	var buf [64]byte
	for _, s := range append(append([]socket{}, r.inside...), r.outside...) {
		for {
			if _, _, err := unix.Recvfrom(s.fd, buf[:], unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
	}
	for _, h := range r.raws {
		for {
			if _, _, err := h.receive(); err != nil {
				break
			}
		}
	}
}
