package middlebox

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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

// put adds the rule that a program adds for a UDP mapping.
func put(t *testing.T, l *lab, external uint16, inside netip.AddrPort) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(l.space("a").FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := portMappingTable()
	exprs := append(iif("wan").exprs,
		ipProtocol.load(reg1), equal([]byte{numbers[UDP]}), destPort.load(reg1), equal([]byte{byte(external >> 8), byte(external)}),
		&expr.Immediate{Register: 1, Data: inside.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: []byte{byte(inside.Port() >> 8), byte(inside.Port())}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: 1, RegProtoMin: 2})
	c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: PortMappingPrerouting, Table: table}, Exprs: exprs})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// untilMapped waits until the box keeps to n mappings.
func untilMapped(t *testing.T, loader *Loader, n int) {
	t.Helper()
	limit := time.Now().Add(5 * time.Second)
	for {
		loader.mu.Lock()
		got := len(loader.ports)
		loader.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the box keeps to %d port mappings, want %d", got, n)
		}
		time.Sleep(time.Millisecond)
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
			put(t, l, external, local(alice))
			l.send(s1, mapped, "stranger")
			if got, from := l.receive(alice); got != "stranger" || from != local(s1) {
				t.Errorf("%q from %v got in, want the stranger's", got, from)
			}
			if got := l.observe(alice, s1); got != mapped {
				t.Errorf("the answer leaves from %v, want %v", got, mapped)
			}
			untilMapped(t, loader, 1)
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

			// Gone with its table.
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			untilMapped(t, loader, 0)
			if b.Filtering == FilterAddressAndPortDependent {
				before := l.dropped("a", UnsolicitedRule)
				l.send(l.udp("s2"), mapped, "late")
				l.untilDropped("a", UnsolicitedRule, before+1)
			}
		})
	}
}
