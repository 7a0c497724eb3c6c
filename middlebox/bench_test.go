package middlebox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gauntlet/topo"
	"gauntlet/topo/ns"
)

// The lab that is measured: 200 hosts, two behind each of 100 boxes.
const (
	benchBoxes = 100
	benchHosts = 200
	rounds     = 5 // lab and floor in turn; the median counts
)

// BenchmarkLab200 measures what a lab costs against the floor, which is what
// the kernel takes for the same namespaces, bridges, veths and addresses, with
// everything up, by bare netlink calls on one thread. The lab's time ends when
// all rules are loaded; so it has routes, parameters, offloads off and rules
// on top. It reports milliseconds a host and the ratio of the medians.
func BenchmarkLab200(b *testing.B) {
	d := topo.Description{}
	for i := range benchBoxes {
		name := fmt.Sprintf("box%d", i)
		d.Boxes = append(d.Boxes, topo.BoxDescription{Name: name, Translates: true})
		for j := range benchHosts / benchBoxes {
			d.Hosts = append(d.Hosts, topo.HostDescription{Name: fmt.Sprintf("host%d-%d", i, j), Behind: name})
		}
	}
	plan, err := topo.NewPlan(d)
	if err != nil {
		b.Fatal(err)
	}
	var lab, floor []time.Duration
	for b.Loop() {
		for range rounds {
			lab = append(lab, measure(b, func() (func() error, error) { return buildLab(b.Context(), d) }))
			floor = append(floor, measure(b, func() (func() error, error) { return buildFloor(plan) }))
		}
	}
	perHost := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / benchHosts }
	b.ReportMetric(perHost(median(lab)), "ms/host")
	b.ReportMetric(perHost(median(floor)), "floor-ms/host")
	b.ReportMetric(float64(median(lab))/float64(median(floor)), "ratio")
	b.ReportMetric(0, "ns/op")
}

// measure times a build; taking it down again is not part of it, and is waited
// for, since the kernel does that in the background.
func measure(b *testing.B, build func() (func() error, error)) time.Duration {
	b.Helper()
	runtime.GC()
	start := time.Now()
	undo, err := build()
	took := time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	if err := undo(); err != nil {
		b.Fatal(err)
	}
	// A namespace outlives its last netlink socket by a grace period of RCU,
	// hence twice.
	for range 2 {
		canary, err := newCanary()
		if err != nil {
			b.Fatal(err)
		}
		if err := canary.wait(); err != nil {
			b.Fatal(err)
		}
	}
	return took
}

// canary tells when the kernel has taken down all namespaces that were given
// up so far. It is a veth between two namespaces: when the far one is given up
// after the others and the near end is gone, all are done, since the kernel
// takes them down in order.
type canary struct {
	near, far *ns.Handle
	handle    *netlink.Handle // in near
	keeper    *netlink.Handle // in far, so that it ends no earlier than others with a socket
}

func newCanary() (c *canary, err error) {
	c = &canary{}
	if c.near, err = ns.New(); err != nil {
		return nil, err
	}
	if c.far, err = ns.New(); err != nil {
		return nil, err
	}
	if c.handle, err = netlink.NewHandleAt(netns.NsHandle(c.near.FD()), unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if c.keeper, err = netlink.NewHandleAt(netns.NsHandle(c.far.FD()), unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "near"
	return c, c.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far", PeerNamespace: netlink.NsFd(c.far.FD())})
}

func (c *canary) wait() error {
	defer c.near.Close()
	defer c.handle.Close()
	c.keeper.Close()
	if err := c.far.Close(); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := c.handle.LinkByName("near")
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			break
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the kernel keeps namespaces that were given up")
		}
		time.Sleep(time.Millisecond) // the kernel tells nobody
	}
	// The near end goes before the kernel gives up the lock under which it takes
	// interfaces down, and which a new namespace needs.
	space, err := ns.New()
	if err != nil {
		return err
	}
	return space.Close()
}

func median(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// buildLab makes the lab from its description to the last rule.
func buildLab(ctx context.Context, d topo.Description) (undo func() error, err error) {
	plan, err := topo.NewPlan(d)
	if err != nil {
		return nil, err
	}
	network, err := topo.Build(ctx, plan)
	if err != nil {
		return nil, err
	}
	behaviour, _ := Preset("port-restricted")
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, box := range plan.Boxes {
		group.Go(func() error {
			rs, err := Rules(Box{Name: box.Name, Behaviour: behaviour, WAN: "wan", LAN: "lan", WANAddrs: box.WAN, LANPrefix: box.LAN, LogGroup: 1})
			if err != nil {
				return err
			}
			return Load(network.Namespace(box.Name), rs)
		})
	}
	if err := group.Wait(); err != nil {
		network.Close()
		return nil, err
	}
	return network.Close, nil
}

// site is a namespace of the floor, with its netlink socket.
type site struct {
	space  *ns.Handle
	handle *netlink.Handle
}

// buildFloor makes the plan's namespaces, bridges, veths and addresses and
// brings all up, one after the other.
func buildFloor(plan *topo.Plan) (undo func() error, err error) {
	var made []*ns.Handle
	undo = func() error {
		for _, h := range made {
			if err := h.Close(); err != nil {
				return err
			}
		}
		return nil
	}
	open := func() (site, error) {
		space, err := ns.New()
		if err != nil {
			return site{}, err
		}
		made = append(made, space)
		handle, err := netlink.NewHandleAt(netns.NsHandle(space.FD()), unix.NETLINK_ROUTE)
		if err != nil {
			return site{}, err
		}
		return site{space, handle}, handle.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}})
	}
	err = func() error {
		internet, err := open()
		if err != nil {
			return err
		}
		defer internet.handle.Close()
		if err := internet.bridge("br0", netip.PrefixFrom(plan.Internet.Addr, plan.Internet.Prefix.Bits())); err != nil {
			return err
		}
		index := 10
		for i, b := range plan.Boxes {
			box, err := open()
			if err != nil {
				return err
			}
			defer box.handle.Close()
			if err := internet.attach(index+i, b.Port, box, "wan", netip.PrefixFrom(b.WAN[0], b.WANBits)); err != nil {
				return err
			}
			if err := box.bridge("lan", netip.PrefixFrom(b.LANAddr, b.LAN.Bits())); err != nil {
				return err
			}
			for j, h := range plan.Hosts[i*benchHosts/benchBoxes : (i+1)*benchHosts/benchBoxes] {
				host, err := open()
				if err != nil {
					return err
				}
				defer host.handle.Close()
				if err := box.attach(index+j, h.Port, host, "eth0", netip.PrefixFrom(h.Addrs[0], h.Bits)); err != nil {
					return err
				}
			}
		}
		return nil
	}()
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// Indexes of the floor's interfaces. The first interface beside the loopback
// gets 2 by itself.
const (
	floorUplink = 2
	floorBridge = 3
)

// bridge makes a bridge with an address, up.
func (s site) bridge(name string, addr netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.Flags = name, floorBridge, net.FlagUp
	if err := s.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	return s.address(floorBridge, addr)
}

func (s site) address(index int, addr netip.Prefix) error {
	ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}
	return s.handle.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ip})
}

// attach joins the bridge to another namespace with a veth, up at both ends
// and with an address at the other.
func (s site) attach(index int, port string, to site, uplink string, addr netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.MasterIndex, attrs.Flags = port, index, floorBridge, net.FlagUp
	if err := s.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(to.space.FD())}); err != nil {
		return err
	}
	if err := to.handle.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: floorUplink}}); err != nil {
		return err
	}
	return to.address(floorUplink, addr)
}
