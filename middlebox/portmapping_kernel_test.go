package middlebox

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mapperLab is a lab whose box a has port mappings.
func mapperLab(t *testing.T, b Behaviour) (*lab, *Loader, *PortMapper) {
	t.Helper()
	b.PortMapping = true
	l := newLab(t, b, Behaviour{})
	box, _ := l.plan.Box("a")
	rs, err := Rules(Box{Name: "a", Behaviour: b, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, LogGroup: group})
	if err != nil {
		t.Fatal(err)
	}
	loader, err := NewLoader(l.space("a"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loader.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := loader.Load(rs); err != nil {
		t.Fatal(err)
	}
	m, err := NewPortMapper(loader, "wan", box.WAN[0])
	if err != nil {
		t.Fatal(err)
	}
	return l, loader, m
}

// put adds the rule that a program adds for a mapping.
func put(t *testing.T, l *lab, p Protocol, external uint16, inside netip.AddrPort) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(l.space("a").FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := portMappingTable()
	exprs := append(iif("wan").exprs,
		ipProtocol.load(reg1), equal([]byte{numbers[p]}), destPort.load(reg1), equal([]byte{byte(external >> 8), byte(external)}),
		&expr.Immediate{Register: 1, Data: inside.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: []byte{byte(inside.Port() >> 8), byte(inside.Port())}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: 1, RegProtoMin: 2})
	c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: PortMappingPrerouting, Table: table}, Exprs: exprs})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Until the box keeps to a mapping that a program has made, it may still give
// the port to another host: whoever sends to the port is let in to the one that
// asked all the same, and the other loses it as soon as the box has caught up.
func TestPortMappingLag(t *testing.T) {
	l, loader, m := mapperLab(t, Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent})
	defer m.Close()
	box, _ := l.plan.Box("a")
	alice, server := l.udp("alice"), l.udp("s1")
	const external = 40123
	mapped := netip.AddrPortFrom(box.WAN[0], external)
	second := l.secondHost(box.LANAddr.Next().Next(), external)

	loader.mu.Lock() // keeps it from catching up
	put(t, l, UDP, external, local(alice))
	if got := l.observe(second, server); got != mapped {
		t.Errorf("another host sends from %v meanwhile, want %v, which its own port is", got, mapped)
	}
	stranger := l.udp("s2")
	l.send(stranger, mapped, "stranger")
	if got, from := l.receive(alice); got != "stranger" || from != local(stranger) {
		t.Errorf("%q from %v got in meanwhile, want the stranger's", got, from)
	}
	loader.mu.Unlock()

	untilMapped(t, l, loader, 1)
	if err := loader.MapPorts([]PortMapping{{UDP, local(alice), mapped}}); err != nil { // when it is done, the first is
		t.Fatal(err)
	}
	if got := l.observe(second, server); got == mapped {
		t.Errorf("the other host still sends from %v", got)
	}
	if got := l.observe(alice, server); got != mapped {
		t.Errorf("who asked sends from %v, want %v", got, mapped)
	}
}

// marks returns the marks of connections to a server, and when there are none
// any more, or never were, none.
func marks(t *testing.T, l *lab, p Protocol, server netip.AddrPort) (all []uint32) {
	t.Helper()
	if err := l.space("a").Do(func() error {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range entries {
			to, ok := netip.AddrFromSlice(f.Forward.DstIP.To4())
			if ok && f.Forward.Protocol == numbers[p] && netip.AddrPortFrom(to, f.Forward.DstPort) == server {
				all = append(all, f.Mark)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// A TCP connection of a mapped endpoint is one also when an end has closed it,
// whichever it is, and its external port isn't kept for longer than that takes.
func TestPortMappingTCPCloses(t *testing.T) {
	for _, closes := range []string{"alice", "s1"} {
		t.Run(closes, func(t *testing.T) {
			const external, transitory = 40123, 50 * time.Second
			l, loader, m := mapperLab(t, Behaviour{
				Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, TCPTransitory: transitory,
			})
			defer m.Close()
			box, _ := l.plan.Box("a")
			inside := netip.AddrPortFrom(l.addr("alice"), 40_000)
			put(t, l, TCP, external, inside)
			untilMapped(t, l, loader, 1)
			at := l.listen("s1")
			server := at.Addr().(*net.TCPAddr).AddrPort()
			near, err := l.connect("alice", inside, server)
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			far, err := at.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			exchange(t, near, far, "open")
			if from := far.RemoteAddr().String(); from != netip.AddrPortFrom(box.WAN[0], external).String() {
				t.Fatalf("alice connects from %s, want port %d", from, external)
			}
			if got := marks(t, l, TCP, server); !slices.Equal(got, []uint32{MappedMark}) {
				t.Errorf("marks %v while it is open, want %d", got, MappedMark)
			}
			ends := map[string]net.Conn{"alice": near, "s1": far}
			if err := ends[closes].(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			delete(ends, closes)
			for _, other := range ends { // hears of it
				if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Fatalf("after a FIN the other end reads: %v", err)
				}
				if _, err := other.Write([]byte("still")); err != nil {
					t.Fatal(err)
				}
			}
			if got := marks(t, l, TCP, server); !slices.Equal(got, []uint32{MappedMark | closingMark}) {
				t.Errorf("marks %v after a FIN, want %d", got, MappedMark|closingMark)
			}
			if left := life(t, l, internalMap(TCP)); left > transitory {
				t.Errorf("its external port is kept for %v, want at most %v", left, transitory)
			}
		})
	}
}

// life is the longest that an element of a set has left.
func life(t *testing.T, l *lab, name string) (longest time.Duration) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(l.space("a").FD()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.GetSetByName(table(), name)
	if err != nil {
		t.Fatal(err)
	}
	elements, err := c.GetSetElements(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range elements {
		longest = max(longest, e.Expires)
	}
	return longest
}

// untilMapped waits until the box keeps to n mappings, which it changes its rules
// for: the kernel tells of each change.
func untilMapped(t *testing.T, l *lab, loader *Loader, n int) {
	t.Helper()
	var changes *nfnetlink.Conn
	err := l.space("a").Do(func() (err error) {
		changes, err = nfnetlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	if err := errors.Join(changes.JoinGroup(unix.NFNLGRP_NFTABLES), changes.SetReadDeadline(time.Now().Add(patience))); err != nil {
		t.Fatal(err)
	}
	for {
		loader.mu.Lock()
		got := len(loader.ports)
		loader.mu.Unlock()
		if got == n {
			return
		}
		if _, err := changes.Receive(); err != nil {
			t.Fatalf("the box keeps to %d port mappings, want %d: %v", got, n, err)
		}
	}
}

// A mapping lets a stranger in at once, the answer leaves from its port, and so
// does what the endpoint sends to others. Nobody else gets the port, neither who
// asks for it later nor who has had it before.
func TestPortMapping(t *testing.T) {
	for name, b := range map[string]Behaviour{
		"port-restricted": {Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent},
		"symmetric":       {Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: PreservePorts},
		"full cone":       {Mapping: MapEndpointIndependent, Filtering: FilterEndpointIndependent},
	} {
		t.Run(name, func(t *testing.T) {
			l, loader, m := mapperLab(t, b)
			box, _ := l.plan.Box("a")
			alice, s1, s2 := l.udp("alice"), l.udp("s1"), l.udp("s2")
			const external = 40123
			mapped := netip.AddrPortFrom(box.WAN[0], external)

			// A second host has the port before.
			second := l.secondHost(box.LANAddr.Next().Next(), external)
			if got := l.observe(second, s2); got != mapped {
				t.Fatalf("ports: preserve gives %v, want %v", got, mapped)
			}
			put(t, l, UDP, external, local(alice))
			l.send(s1, mapped, "stranger")
			if got, from := l.receive(alice); got != "stranger" || from != local(s1) {
				t.Errorf("%q from %v got in, want the stranger's", got, from)
			}
			if got := l.observe(alice, s1); got != mapped {
				t.Errorf("the answer leaves from %v, want %v", got, mapped)
			}
			untilMapped(t, l, loader, 1)
			if got := l.observe(alice, l.udp("s2")); got != mapped {
				t.Errorf("to others it sends from %v, want %v", got, mapped)
			}
			for _, to := range []string{"s1", "s2"} {
				if got := l.observe(second, l.udp(to)); got == mapped {
					t.Errorf("who had the port sends to %s from %v, which is mapped", to, got)
				}
			}
			if got := l.observe(second, s2); got == mapped {
				t.Errorf("the flow of who had the port goes on from %v, which is mapped", got)
			}

			// It has a lifetime of its own.
			if err := loader.ExpireUDP(); err != nil {
				t.Fatal(err)
			}
			if got := l.observe(alice, s1); got != mapped {
				t.Errorf("when UDP mappings expire it sends from %v, want %v", got, mapped)
			}
			if got := l.observe(second, s2); got == mapped {
				t.Errorf("when UDP mappings expire, who had the port gets %v again, which is mapped", got)
			}

			// Gone with its table.
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			untilMapped(t, l, loader, 0)
			if b.Filtering == FilterAddressAndPortDependent {
				before := l.dropped("a", UnsolicitedRule)
				l.send(l.udp("s2"), mapped, "late")
				l.untilDropped("a", UnsolicitedRule, before+1)
			}
		})
	}
}

// Who has asked for a TCP port lets everybody in by it, whatever tcp_filtering
// says, and connects from it; to another endpoint of the same host tcp_filtering
// is what it was.
func TestPortMappingTCPFiltering(t *testing.T) {
	eachTCP(t, []Filtering{FilterEndpointIndependent, FilterAddressDependent, FilterAddressAndPortDependent}, func(t *testing.T, b Behaviour) {
		l, loader, m := mapperLab(t, b)
		box, _ := l.plan.Box("a")
		const external = 40_123
		mapped := netip.AddrPortFrom(box.WAN[0], external)
		owner, other := netip.AddrPortFrom(l.addr("alice"), 40_000), netip.AddrPortFrom(l.addr("alice"), 40_001)
		put(t, l, TCP, external, owner)
		untilMapped(t, l, loader, 1)

		at, server := l.listenAt("alice", owner), l.listen("s1")
		for _, stranger := range []string{"s1", "s2"} {
			outer, inner := l.callIn(stranger, mapped, at)
			exchange(t, outer, inner, "by the mapping")
		}
		if seen := l.seenFrom("alice", owner, server); seen != mapped {
			t.Errorf("it connects from %v, want %v", seen, mapped)
		}

		outside, inside := l.seenFrom("alice", other, server), l.listenAt("alice", other)
		if outside == mapped {
			t.Errorf("another endpoint connects from %v, which is mapped", outside)
		}
		for from, in := range map[string]bool{
			"s2": b.TCPFiltering == FilterEndpointIndependent,
			"s1": b.TCPFiltering != FilterAddressAndPortDependent, // by another port
		} {
			if in {
				outer, inner := l.callIn(from, outside, inside)
				exchange(t, outer, inner, "let in")
				continue
			}
			before := l.dropped("a", UnsolicitedRule)
			if c, err := l.dial(from, outside.String(), 4*pace); !silence(err) {
				if err == nil {
					c.Close()
				}
				t.Errorf("connect from %s to who has no mapping: %v, want silence", from, err)
			}
			l.untilAtLeast("a", UnsolicitedRule, before+1)
		}

		// Gone with its table. The connections keep the port open to whom
		// tcp_filtering lets in.
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		untilMapped(t, l, loader, 0)
		if b.TCPFiltering != FilterAddressAndPortDependent {
			return
		}
		before := l.dropped("a", UnsolicitedRule)
		if c, err := l.dial("s2", mapped.String(), 4*pace); !silence(err) {
			if err == nil {
				c.Close()
			}
			t.Errorf("connect to a port that was mapped: %v, want silence", err)
		}
		l.untilAtLeast("a", UnsolicitedRule, before+1)
	})
}
