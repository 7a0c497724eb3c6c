package run

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/topo/ns/nstest"
)

// A canary goes out whatever a router says of the datagrams before it, and one
// that its host can't send is an error.
func TestSendCanary(t *testing.T) {
	nstest.New(t) // whoever may not make one skips this
	s, err := scenario.Parse("x.yaml", []byte(`topology:
  middleboxes: {wall: {preset: udp-blocked, unsolicited: reject}}
  hosts: {alice: {behind: wall}, bob: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	i, err := internet.Up(t.Context(), s.Topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	r := &single{Scenario: s, internet: i}
	for range 3 {
		if err := r.sendCanaries(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.canaries) != 3 || r.canaries[2].Sizes[0] != canarySize+2*canaryCount {
		t.Errorf("canaries %+v", r.canaries)
	}

	h, err := netlink.NewHandleAt(netns.NsHandle(i.Namespace("alice").FD()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if err := h.RouteDel(&netlink.Route{Dst: all}); err != nil {
		t.Fatal(err)
	}
	if err := r.sendCanaries(); !errors.Is(err, unix.ENETUNREACH) || !strings.HasPrefix(err.Error(), "canary from alice: ") {
		t.Errorf("without a route: %v", err)
	}
}
