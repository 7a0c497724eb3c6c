package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
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

// Types of ICMP messages (RFC 792).
const (
	echoReply   = 0
	echoRequest = 8
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
	raws    []raw                // of all hosts, for TCP
	own     map[int]raw          // of the box, by the number of the protocol
	icmp    []raw                // of all hosts, if ears has opened them
	fences  []fence              // from alice and anna to s1 and s2
	loaded  *middlebox.Behaviour // nil if the rules are none, or have to be loaded again
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
	r.own = map[int]raw{}
	for _, protocol := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		r.in("box", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
			if err == nil {
				r.Cleanup(func() { unix.Close(fd) })
				r.own[protocol] = raw{fd: fd}
			}
			return err
		})
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
	fd       int
	from, to netip.Addr
	id       uint16
}

func (r *rig) fence(from, to string) fence {
	r.Helper()
	f := fence{from: r.addr(from), to: r.addr(to), id: uint16(len(r.fences) + 1)}
	r.in(from, func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		r.Cleanup(func() { unix.Close(f.fd) })
		return unix.Bind(f.fd, &unix.SockaddrInet4{Addr: f.from.As4()})
	})
	return f
}

// pass waits until an echo request has gone through and its reply has come
// back, which most often it has when sending returns. The thread itself waits:
// to hand its processor on to another one costs more than a packet.
func (f fence) pass(sequence uint16) error {
	request := make([]byte, 8)
	request[0] = echoRequest
	binary.BigEndian.PutUint16(request[4:], f.id)
	binary.BigEndian.PutUint16(request[6:], sequence)
	binary.BigEndian.PutUint16(request[2:], internetSum(request))
	for begun := time.Now(); time.Since(begun) < patience; {
		if err := unix.Sendto(f.fd, request, 0, &unix.SockaddrInet4{Addr: f.to.As4()}); err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		for sent := time.Now(); ; {
			back, err := f.back(sequence)
			if err != nil {
				return fmt.Errorf("fence: %w", err)
			}
			if back {
				return nil
			}
			left := resend - time.Since(sent)
			if left <= 0 {
				break
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("fence: %w", err)
			}
		}
	}
	return fmt.Errorf("fence: no answer in %v", patience)
}

// back reads what has come and says whether the reply is among it.
func (f fence) back(sequence uint16) (bool, error) {
	var buf [128]byte
	for {
		n, _, err := unix.Recvfrom(f.fd, buf[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		m := buf[min(n, int(buf[0]&15)*4):n]
		if len(m) >= 8 && m[0] == echoReply && binary.BigEndian.Uint16(m[4:]) == f.id && binary.BigEndian.Uint16(m[6:]) == sequence {
			return true, nil
		}
	}
}

// flush passes the fences that follow a packet on its way: that to the outside
// host, those from it, or, after a packet that turns around in the box, first
// that of its sender, then those of the receivers it may have.
func (r *rig) flush(from, to netip.AddrPort, sequence uint16) error {
	way, first, then := []fence{}, []fence{}, []fence{}
	for _, f := range r.fences {
		switch {
		case f.to == from.Addr() || f.from == from.Addr() && f.to == to.Addr():
			way = append(way, f)
		case f.from == from.Addr():
			first = append(first, f)
		default:
			then = append(then, f)
		}
	}
	if len(way) == 0 {
		way = append(first, then...)
	}
	for _, f := range way {
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
	local   bool   // the box itself got it
	dropped string // the rule, if nobody did
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
	got := make([]byte, 64)
	for n := 0; n >= 0; {
		if n, _, _ = unix.Recvfrom(r.own[unix.IPPROTO_UDP].fd, got, unix.MSG_DONTWAIT); n > 0 && bytes.HasSuffix(got[:n], payload) {
			out.local = true
		}
	}
	var err error
	if !out.arrived && !out.local {
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
	return Config{Behaviour: b, WAN: box.WAN, LAN: box.LAN, Denied: map[string][]netip.Addr{"s2": {r.addr("s2")}, "anna": {r.addr("anna")}}}
}

// behave gives the kernel's box a behaviour and no state. Rules that it has
// already are not loaded again, which takes longer than most sequences.
func (r *rig) behave(b middlebox.Behaviour) error {
	r.drain()
	if r.loaded != nil && reflect.DeepEqual(*r.loaded, b) {
		return r.loader.Forget()
	}
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
	r.loaded = &b
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
	for _, h := range append(slices.Collect(maps.Values(r.own)), r.raws...) {
		for {
			if _, _, err := unix.Recvfrom(h.fd, buf[:], unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
	}
}
