package topo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// build makes a network that ends with the test. Without the right to make
// namespaces the test is skipped, or fails if GAUNTLET_NO_SKIP is 1.
func build(t testing.TB, d Description) (*Plan, *Network) {
	t.Helper()
	plan, err := NewPlan(d)
	if err != nil {
		t.Fatal(err)
	}
	return plan, stand(t, plan)
}

// stand builds a plan.
func stand(t testing.TB, plan *Plan) *Network {
	t.Helper()
	n, err := Build(t.Context(), plan)
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// interfaces lists those of the calling thread's namespace.
func interfaces(t *testing.T) (names []string) {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// listen opens a UDP socket in a namespace.
func listen(t testing.TB, h *ns.Handle, addr netip.Addr) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// deliver sends one datagram and returns what arrived and from where.
func deliver(t testing.TB, from, to *net.UDPConn, payload string) (string, netip.AddrPort) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(payload), to.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatalf("send: %v", err)
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, source, err := to.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return string(buf[:n]), source
}

// Firewalls behind firewalls and beside them, with hosts at every depth:
//
//	internet -- login
//	   |
//	  corp -- carol
//	   |
//	  lab -- dan
func TestBuildForwardsAcrossNestedBoxes(t *testing.T) {
	before := interfaces(t)
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "corp"}, {Name: "lab", Behind: "corp"}, {Name: "other"}},
		Hosts: []HostDescription{{Name: "login", IPs: addrs("198.18.0.7", "198.18.0.8")}, {Name: "carol", Behind: "corp"}, {Name: "dan", Behind: "lab"}, {Name: "olga", Behind: "other"}},
	})
	if after := interfaces(t); !slices.Equal(before, after) {
		t.Errorf("interfaces of the own namespace: %v before, %v after", before, after)
	}
	type socket struct {
		name string
		conn *net.UDPConn
	}
	var sockets []socket
	for _, h := range plan.Hosts {
		for _, a := range h.Addrs {
			sockets = append(sockets, socket{h.Name, listen(t, n.Namespace(h.Name), a)})
		}
	}
	for _, from := range sockets {
		for _, to := range sockets {
			if from.conn == to.conn {
				continue
			}
			// The first packet must get through at once: nothing is retried here.
			payload, source := deliver(t, from.conn, to.conn, from.name)
			if payload != from.name || source != from.conn.LocalAddr().(*net.UDPAddr).AddrPort() {
				t.Errorf("%s to %s: got %q from %v", from.name, to.name, payload, source)
			}
		}
	}
}

// Nothing but what hosts send is in a capture: neither IPv6 nor IGMP of the
// bridges' own.
func TestBuildIsSilent(t *testing.T) {
	_, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "home", Translates: true}},
		Hosts: []HostDescription{{Name: "alice", Behind: "home"}, {Name: "login"}},
	})
	for name, own := range map[string][]string{"alice": {"eth0"}, "home": {"wan", "lan", "lan1"}, InternetName: {"br0", "p1", "p2"}} {
		if err := n.Namespace(name).Do(func() error {
			for _, i := range own {
				for _, counter := range []string{"rx_packets", "tx_packets"} {
					list, err := statistics(i)
					if err != nil {
						return err
					}
					if list[counter] != 0 {
						t.Errorf("%s of %s, %s: %d, want 0", counter, name, i, list[counter])
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// statistics reads the counters of an interface of the calling thread's
// namespace.
func statistics(name string) (map[string]uint64, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	link, err := handle.LinkByName(name)
	if err != nil {
		return nil, err
	}
	s := link.Attrs().Statistics
	return map[string]uint64{"rx_packets": s.RxPackets, "tx_packets": s.TxPackets}, nil
}

// A translating box without rules routes: its hosts reach it and what is
// directly outside it, and the internet has no route to its LAN.
func TestBuildKeepsPrivateAddressesPrivate(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "isp", Translates: true}, {Name: "home", Behind: "isp", Translates: true, Addresses: 2}},
		Hosts: []HostDescription{{Name: "alice", Behind: "home"}, {Name: "login"}},
	})
	alice, _ := plan.Host("alice")
	home, _ := plan.Box("home")
	from := listen(t, n.Namespace("alice"), alice.Addrs[0])
	for _, a := range append([]netip.Addr{home.LANAddr}, home.WAN...) {
		deliver(t, from, listen(t, n.Namespace("home"), a), "in")
	}
	login, _ := plan.Host("login")
	outside := listen(t, n.Namespace("login"), login.Addrs[0])
	if err := n.Namespace(InternetName).Do(func() error {
		c, err := net.Dial("udp4", netip.AddrPortFrom(alice.Addrs[0], 9).String())
		if err == nil {
			c.Close()
		}
		return err
	}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("route from the internet to %v: %v, want none", alice.Addrs[0], err)
	}
	// One way there is a route: the packet arrives with its private source.
	if _, source := deliver(t, from, outside, "out"); source.Addr() != alice.Addrs[0] {
		t.Errorf("source %v, want %v", source.Addr(), alice.Addrs[0])
	}
}

func TestBuildOffloadsOffAndParameters(t *testing.T) {
	plan, n := build(t, Description{
		Boxes: []BoxDescription{{Name: "home", Translates: true}},
		Hosts: []HostDescription{{Name: "alice", Behind: "home"}, {Name: "login"}},
	})
	get := map[string]uint32{
		"rx-gro": unix.ETHTOOL_GGRO, "tx-gso": unix.ETHTOOL_GGSO, "tx-tso": unix.ETHTOOL_GTSO,
		"tx-checksum": unix.ETHTOOL_GTXCSUM, "scatter-gather": unix.ETHTOOL_GSG,
	}
	names := []string{InternetName, "home", "alice", "login"}
	for _, name := range names {
		if err := n.Namespace(name).Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for _, i := range interfaces(t) {
				if i == "lo" {
					continue
				}
				for feature, cmd := range get {
					if on, err := ethtool(fd, i, cmd, 0); err != nil || on != 0 {
						t.Errorf("%s of %s in %s: %d, %v; want it off", feature, i, name, on, err)
					}
				}
			}
			want := map[string]string{"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv4.ip_forward": "0"}
			if name == InternetName || name == "home" {
				want["net.ipv4.ip_forward"] = "1"
				want["net.netfilter.nf_conntrack_acct"] = "1"
				want["net.netfilter.nf_conntrack_timestamp"] = "1"
				const bridged = "net.bridge.bridge-nf-call-iptables"
				if _, err := ns.ReadSysctl(bridged); !errors.Is(err, os.ErrNotExist) {
					want[bridged] = "0"
				}
				for _, i := range n.Interfaces(name) {
					want["net.ipv4.conf."+i+".send_redirects"] = "0"
					want["net.ipv4.conf."+i+".accept_redirects"] = "0"
				}
			}
			for parameter, value := range want {
				if got, err := ns.ReadSysctl(parameter); err != nil || got != value {
					t.Errorf("%s in %s: %q, %v; want %s", parameter, name, got, err, value)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]string{"alice": {"eth0"}, "home": {"wan", "lan"}, InternetName: {"br0"}, "nobody": nil} {
		if got := n.Interfaces(name); !slices.Equal(got, want) {
			t.Errorf("interfaces of %s: %v, want %v", name, got, want)
		}
	}
	if n.Namespace("nobody") != nil {
		t.Error("a namespace for an unknown name")
	}
	if got, want := len(plan.Hosts), 2; got != want {
		t.Errorf("%d hosts, want %d", got, want)
	}
}

// 20 datagrams of 1000 bytes at 800 kbit/s take 0.2 s; unshaped they take under
// 10 ms. They fit into the queue, so none may be lost.
func TestBuildShapesRate(t *testing.T) {
	const (
		count, size = 20, 1000
		headers     = 14 + 20 + 8 // Ethernet, IPv4, UDP
		rate        = 800_000
	)
	for _, c := range []struct {
		name string
		link Link
	}{{"up", Link{Up: Shape{Rate: rate}}}, {"down", Link{Down: Shape{Rate: rate}}}} {
		t.Run(c.name, func(t *testing.T) {
			plan, n := build(t, Description{Hosts: []HostDescription{{Name: "a", Link: c.link}, {Name: "b"}}})
			if m := n.Missing(); len(m) != 0 {
				t.Skipf("kernel: %v", m)
			}
			a, _ := plan.Host("a")
			b, _ := plan.Host("b")
			sockets := []*net.UDPConn{listen(t, n.Namespace("a"), a.Addrs[0]), listen(t, n.Namespace("b"), b.Addrs[0])}
			from, to := sockets[0], sockets[1]
			if c.name == "down" {
				from, to = to, from
			}
			start := time.Now()
			for range count {
				if _, err := from.WriteToUDPAddrPort(make([]byte, size), to.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
					t.Fatal(err)
				}
			}
			buf := make([]byte, 1500)
			for i := range count {
				if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := to.ReadFromUDPAddrPort(buf); err != nil {
					t.Fatalf("datagram %d of %d: %v", i+1, count, err)
				}
			}
			// The bucket lets the first at once.
			least := time.Duration((count - 2) * (size + headers) * 8 * float64(time.Second) / rate)
			if took := time.Since(start); took < least*9/10 {
				t.Errorf("%d datagrams in %v, want at least %v", count, took, least)
			}
		})
	}
}

// A build that is stopped, or that the kernel refuses, leaves no descriptor.
func TestBuildUndoesItself(t *testing.T) {
	plan, n := build(t, Description{Hosts: []HostDescription{{Name: "a"}, {Name: "b"}}})
	n.Close()
	before := descriptors(t)
	stopped, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the user gave up")
	cancel(reason)
	if _, err := Build(stopped, plan); !errors.Is(err, reason) {
		t.Errorf("stopped build: %v, want the cause", err)
	}
	twice := *plan
	twice.Hosts = slices.Clone(plan.Hosts)
	twice.Hosts[1].Port = twice.Hosts[0].Port
	if _, err := Build(t.Context(), &twice); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "add veth p1") {
		t.Errorf("build with one port twice: %v, want the step that failed", err)
	}
	if after := descriptors(t); after > before { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open after failed builds, %d before", after, before)
	}
	astray := *plan
	astray.Hosts = []Host{{Name: "c", Behind: "nothing"}}
	if _, err := Build(t.Context(), &astray); err == nil {
		t.Error("a host behind nothing was built")
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
