package capture

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
	"gauntlet/topo/ns/nstest"
)

// The lab of these tests:
//
//	inner 10.0.1.2 -- lan 10.0.1.1 [router] 198.18.1.1 wan -- outer 198.18.1.2
//
// The router masquerades, and drops and logs what comes from outside unasked.
const (
	logGroup = 5
	dropRule = "unsolicited"
)

var (
	innerAddress  = netip.MustParseAddr("10.0.1.2")
	routerAddress = netip.MustParseAddr("198.18.1.1")
	outerAddress  = netip.MustParseAddr("198.18.1.2")
)

type lab struct {
	inner, router, outer *ns.Handle
}

// missing ends a test that this machine cannot run: it is skipped, or fails
// where GAUNTLET_NO_SKIP asks for every test.
func missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

func newLab(t testing.TB) lab {
	t.Helper()
	l := lab{inner: nstest.New(t), router: nstest.New(t), outer: nstest.New(t)}
	for _, p := range []struct {
		host            *ns.Handle
		iface           string
		hostNet, boxNet string
		gateway         string
	}{
		{l.inner, "lan", "10.0.1.2/24", "10.0.1.1/24", "10.0.1.1"},
		{l.outer, "wan", "198.18.1.2/24", "198.18.1.1/24", ""},
	} {
		must(t, p.host.Do(func() error {
			link := &netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: p.iface, PeerNamespace: netlink.NsFd(l.router.FD()),
			}
			return netlink.LinkAdd(link)
		}))
		address(t, p.host, "eth0", p.hostNet, p.gateway)
		address(t, l.router, p.iface, p.boxNet, "")
	}
	nstest.Carry(t, l.inner, "eth0")
	nstest.Carry(t, l.outer, "eth0")
	nstest.Carry(t, l.router, "lan", "wan")
	must(t, l.router.Sysctl("net.ipv4.ip_forward", "1"))
	must(t, l.router.Sysctl("net.netfilter.nf_conntrack_acct", "1"))
	must(t, l.router.Sysctl("net.netfilter.nf_conntrack_timestamp", "1"))
	l.rules(t)
	return l
}

func address(t testing.TB, namespace *ns.Handle, iface, network, gateway string) {
	t.Helper()
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace.FD()))
	must(t, err)
	defer handle.Close()
	link, err := handle.LinkByName(iface)
	must(t, err)
	a, err := netlink.ParseAddr(network)
	must(t, err)
	must(t, handle.AddrAdd(link, a))
	must(t, handle.LinkSetUp(link))
	if gateway != "" {
		must(t, handle.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)}))
	}
}

// rules loads masquerading on wan and, in input, the logged drop of UDP.
func (l lab) rules(t testing.TB) {
	t.Helper()
	must(t, l.router.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test"})
		post := c.AddChain(&nftables.Chain{
			Name: "post", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("wan\x00")},
			&expr.Masq{},
		}})
		in := c.AddChain(&nftables.Chain{
			Name: "in", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		c.AddObj(&nftables.CounterObj{Table: table, Name: dropRule})
		c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("wan\x00")},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Objref{Type: 1, Name: dropRule}, // NFT_OBJECT_COUNTER
			&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: logGroup, Data: []byte(dropRule)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return c.Flush()
	}))
}

// counters reads the router's named counter.
func (l lab) counters() (map[string]uint64, error) {
	counted := map[string]uint64{}
	err := l.router.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		objects, err := c.GetObjects(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test"})
		if err != nil {
			return err
		}
		for _, o := range objects {
			if counter, ok := o.(*nftables.CounterObj); ok {
				counted[counter.Name] = counter.Packets
			}
		}
		return nil
	})
	return counted, err
}

// config records everything in the lab.
func (l lab) config(dir string) Config {
	return Config{
		Dir: dir,
		Taps: []Tap{
			{"inner/eth0", l.inner, "eth0"}, {"outer/eth0", l.outer, "eth0"},
			{"router/lan", l.router, "lan"}, {"router/wan", l.router, "wan"},
		},
		Routers: []Router{{Name: "router", Namespace: l.router, LogGroup: logGroup, Counters: l.counters}},
	}
}

func listen(t testing.TB, namespace *ns.Handle, address string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	must(t, namespace.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		return err
	}))
	t.Cleanup(func() { must(t, conn.Close()) })
	return conn
}

func send(t testing.TB, from *net.UDPConn, to netip.AddrPort, size int) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort(make([]byte, size), to); err != nil {
		t.Fatal(fmt.Errorf("send to %s: %w", to, err))
	}
}

// receive returns the length and the sender of the next datagram.
func receive(t testing.TB, at *net.UDPConn) (int, netip.AddrPort) {
	t.Helper()
	buffer := make([]byte, 2048)
	n, from, err := at.ReadFromUDPAddrPort(buffer)
	must(t, err)
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
