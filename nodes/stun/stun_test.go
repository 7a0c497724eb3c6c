package stun

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pion "github.com/pion/stun/v3"
	"go.uber.org/goleak"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	clientAddr = netip.MustParseAddrPort("198.18.0.1:5000")
	firstAddr  = netip.MustParseAddrPort("198.18.0.2:33033")
	secondAddr = netip.MustParseAddrPort("198.18.0.3:33033")
	thirdAddr  = netip.MustParseAddrPort("198.18.0.4:33033")
)

// firewall is a stateful filter in front of the client, as RFC 4787 §5 has
// it: key says which part of the peer's address it looks at.
func firewall(key func(netip.AddrPort) any) memory.Filter {
	var mu sync.Mutex
	sent := map[any]bool{}
	return func(_ string, from, to netip.AddrPort) bool {
		mu.Lock()
		defer mu.Unlock()
		if from == clientAddr {
			sent[key(to)] = true
			return true
		}
		return to != clientAddr || sent[key(from)]
	}
}

// behind runs a detection behind a filter.
func behind(t *testing.T, filter memory.Filter, change func(*Config)) (r Result, took time.Duration, err error) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.New(memory.Latency(5*time.Millisecond), memory.WithFilter(filter))
		prof, _ := profile.Named("")
		open := func(at netip.AddrPort) *datagram.Socket {
			keys, err := identity.NewKeys()
			if err != nil {
				t.Fatal(err)
			}
			s, err := datagram.Listen(t.Context(), n.Host("h", at.Addr()), at, datagram.Config{Keys: keys, Profile: prof})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
		client := open(clientAddr)
		var servers []*datagram.Socket
		for _, at := range []netip.AddrPort{firstAddr, Alternate(firstAddr), secondAddr, Alternate(secondAddr), thirdAddr} {
			s := open(at)
			Serve(s)
			servers = append(servers, s)
		}
		cfg := Config{Socket: client, Local: []netip.Addr{clientAddr.Addr()}, First: firstAddr, Second: secondAddr,
			Answer: time.Second, Silence: 300 * time.Millisecond,
			Elsewhere: func(_ context.Context, id ID, otherAddress bool) error {
				from := servers[1]
				if otherAddress {
					from = servers[4]
				}
				response, err := Response(id, clientAddr)
				if err != nil {
					return err
				}
				return from.WriteTo(response, clientAddr)
			}}
		if change != nil {
			change(&cfg)
		}
		// The own supernode has had a datagram before, as at login.
		Binding(t.Context(), client, firstAddr)
		start := time.Now()
		r, err = Detect(t.Context(), cfg)
		took = time.Since(start)
	})
	return r, took, err
}

func TestFiltering(t *testing.T) {
	for _, test := range []struct {
		want   string
		filter memory.Filter
	}{
		{EndpointIndependent, nil},
		{EndpointIndependent, firewall(func(netip.AddrPort) any { return nil })},
		{AddressDependent, firewall(func(a netip.AddrPort) any { return a.Addr() })},
		{AddressPortDependent, firewall(func(a netip.AddrPort) any { return a })},
	} {
		r, took, err := behind(t, test.filter, nil)
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
			continue
		}
		if r.Mapping != None || r.Filtering != test.want || r.External != clientAddr {
			t.Errorf("found %+v, want filtering %s and no mapping", r, test.want)
		}
		if took > 400*time.Millisecond {
			t.Errorf("%s: took %s", test.want, took)
		}
	}
}

func TestMappedAddress(t *testing.T) {
	// A host that doesn't know the address that servers see is behind a NAT.
	r, _, err := behind(t, nil, func(c *Config) { c.Local = []netip.Addr{netip.MustParseAddr("10.0.0.2")} })
	if err != nil || r.Mapping != EndpointIndependent {
		t.Errorf("found %+v, %v", r, err)
	}
}

// TestMapping puts the decision to the test with servers that see what those
// behind a NAT would.
func TestMapping(t *testing.T) {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("198.18.9.9"), port) }
	for want, seen := range map[string][3]netip.AddrPort{
		EndpointIndependent:  {at(1), at(1), at(1)},
		AddressDependent:     {at(1), at(2), at(2)},
		AddressPortDependent: {at(1), at(2), at(3)},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := memory.New()
			prof, _ := profile.Named("")
			var client *datagram.Socket
			for i, a := range []netip.AddrPort{clientAddr, firstAddr, secondAddr, Alternate(secondAddr)} {
				keys, err := identity.NewKeys()
				if err != nil {
					t.Fatal(err)
				}
				s, err := datagram.Listen(t.Context(), n.Host("h", a.Addr()), a, datagram.Config{Keys: keys, Profile: prof})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if i == 0 {
					client = s
					continue
				}
				s.HandleSTUN(func(from netip.AddrPort, m *pion.Message) bool {
					response, err := Response(m.TransactionID, seen[i-1])
					if err == nil {
						err = s.WriteTo(response, from)
					}
					return err == nil
				})
			}
			c := Config{Socket: client, Local: []netip.Addr{clientAddr.Addr()}, First: firstAddr, Second: secondAddr, Answer: time.Second}
			got, external, err := c.mapping(t.Context())
			if err != nil || got != want || external != seen[0] {
				t.Errorf("%v: found %s, %s, %v; want %s", seen, got, external, err, want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	silent := func(_ string, _, to netip.AddrPort) bool { return to.Addr() != secondAddr.Addr() }
	if r, _, err := behind(t, silent, nil); err == nil {
		t.Errorf("found %+v though a server is silent", r)
	}
	refused := errors.New("refused")
	if _, _, err := behind(t, nil, func(c *Config) {
		c.Elsewhere = func(context.Context, ID, bool) error { return refused }
	}); !errors.Is(err, refused) {
		t.Errorf("error %v, want the cause", err)
	}
}

// TestNoAmplification checks that no response is larger than its request.
func TestNoAmplification(t *testing.T) {
	m, err := Request(pion.NewTransactionID())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"198.18.0.1:1", "[2001:db8::1]:1"} {
		response, err := Response(m.TransactionID, netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		if len(response) > len(m.Raw) {
			t.Errorf("%d bytes answer %d", len(response), len(m.Raw))
		}
		parsed := &pion.Message{Raw: response}
		if err := parsed.Decode(); err != nil {
			t.Fatal(err)
		}
		if got, err := Mapped(parsed); err != nil || got.String() != addr {
			t.Errorf("%s became %s, %v", addr, got, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := memory.New()
		prof, _ := profile.Named("")
		keys, err := identity.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		s, err := datagram.Listen(t.Context(), n.Host("h", firstAddr.Addr()), firstAddr, datagram.Config{Keys: keys, Profile: prof})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		Serve(s)
		c, err := n.Host("c", clientAddr.Addr()).ListenPacket(t.Context(), clientAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		short, err := pion.Build(pion.TransactionID, pion.BindingRequest)
		if err != nil {
			t.Fatal(err)
		}
		conn := c.(interface {
			WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		})
		conn.WriteToUDPAddrPort(short.Raw, firstAddr)
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := c.ReadFrom(make([]byte, 100)); err == nil {
			t.Errorf("a request of %d bytes is answered with %d", len(short.Raw), n)
		}
	})
}
