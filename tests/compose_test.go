package tests

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/vishvananda/netlink"

	"gauntlet/compose/composetest"
	"gauntlet/topo/ns"
)

const (
	composeScenario = "../compose/overlay.yaml"
	composeFile     = "../compose/compose.yaml"
)

// The compose file that is committed is the one that the command writes today.
func TestComposeFileIsCurrent(t *testing.T) {
	o := do(t, "compose", composeScenario)
	if o.status != 0 {
		t.Fatal(o.stderr)
	}
	if *update {
		if err := os.WriteFile(composeFile, []byte(o.stdout), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stored, []byte(o.stdout)) {
		t.Errorf("%s is not what gauntlet compose %s writes; make generate makes it anew", composeFile, composeScenario)
	}
}

// project is an overlay in containers.
type project struct {
	name   string
	file   string
	argv   []string // of Docker Compose
	engine *client.Client
}

// free skips the test where another network of the engine has the addresses of
// the overlay's internet: two can't have them, so this machine can't run it. It
// is the one thing that is skipped on a machine with an engine, whatever may be.
func (p *project) free(t *testing.T) {
	t.Helper()
	ours := netip.MustParsePrefix("198.18.0.0/15")
	all, err := p.engine.NetworkList(t.Context(), network.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		for _, c := range n.IPAM.Config {
			if theirs, err := netip.ParsePrefix(c.Subnet); err == nil && theirs.Overlaps(ours) {
				t.Skipf("the engine's network %s has %s already", n.Name, theirs)
			}
		}
	}
}

// newProject has a compose file written whose image is the binary under test.
// All of it is gone after the test, which fails if it isn't.
func newProject(t *testing.T, scenario string) *project {
	t.Helper()
	p := &project{engine: composetest.Engine(t), name: "gauntlettest" + strings.ToLower(rand.Text()[:8]), file: filepath.Join(t.TempDir(), "compose.yaml")}
	for _, argv := range [][]string{{"docker-compose"}, {"docker", "compose"}} {
		if exec.Command(argv[0], append(argv[1:], "version")...).Run() == nil {
			p.argv = append(argv, "-p", p.name, "-f", p.file)
			break
		}
	}
	p.free(t)
	if p.argv == nil {
		skip(t, "neither docker-compose nor docker compose is here")
	}
	tag := "gauntlet-test:" + p.name
	if o := do(t, "image", "--tag", tag); o.status != 0 {
		t.Fatal(o.stderr)
	}
	built, err := p.engine.ImageInspect(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.engine.ImageRemove(context.Background(), built.ID, image.RemoveOptions{Force: true, PruneChildren: true}) // another test may have
	})
	o := do(t, "compose", "--image", tag, scenario)
	if o.status != 0 {
		t.Fatal(o.stderr)
	}
	if err := os.WriteFile(p.file, []byte(o.stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.down(t) })
	return p
}

// compose runs Docker Compose.
func (p *project) compose(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), p.argv[0], append(p.argv[1:], args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// down takes the project down and checks that nothing is left of it.
func (p *project) down(t *testing.T) {
	t.Helper()
	p.compose(t, "down")
	ctx := context.Background()
	of := filters.NewArgs(filters.Arg("label", "com.docker.compose.project="+p.name))
	containers, err := p.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: of})
	if err != nil || len(containers) > 0 {
		t.Errorf("%d containers are left, %v", len(containers), err)
	}
	networks, err := p.engine.NetworkList(ctx, network.ListOptions{Filters: of})
	if err != nil || len(networks) > 0 {
		t.Errorf("%d networks are left, %v", len(networks), err)
	}
	volumes, err := p.engine.VolumeList(ctx, volume.ListOptions{Filters: of})
	if err != nil || len(volumes.Volumes) > 0 {
		t.Errorf("%d volumes are left, %v", len(volumes.Volumes), err)
	}
}

// pid is the first process of a service's container.
func (p *project) pid(t *testing.T, service string) int {
	t.Helper()
	all, err := p.engine.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(
		filters.Arg("label", "com.docker.compose.project="+p.name), filters.Arg("label", "com.docker.compose.service="+service))})
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %d containers, %v", service, len(all), err)
	}
	info, err := p.engine.ContainerInspect(t.Context(), all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Pid
}

// in runs f in the network namespace of a service's container.
func (p *project) in(t *testing.T, service string, f func() error) {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid(t, service)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ns.FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Do(f); err != nil {
		t.Fatalf("%s: %v", service, err)
	}
}

// Two clients behind NATs that are containers log in and call each other; media
// is punched, which the routers' conntrack shows; nothing reaches the machine;
// and nothing is left behind.
func TestComposeCall(t *testing.T) {
	p := newProject(t, composeScenario)
	p.compose(t, "config", "-q")
	p.compose(t, "up", "-d")
	if t.Failed() {
		t.FailNow()
	}
	drive := func(args ...string) string {
		t.Helper()
		o := do(t, append([]string{"drive", p.name}, args...)...)
		if o.status != 0 {
			t.Fatalf("%s: exit status %d\n%s", args, o.status, o.stderr)
		}
		return o.stdout
	}
	for _, who := range []string{"alice", "bob"} { // two drives, of which the first puts all in service
		out := drive("login", who)
		if want := "login " + who + ": claims direct, tcp; finds mapping endpoint-independent, filtering address-and-port-dependent\n"; out != want {
			t.Errorf("%swant %s", out, want)
		}
	}
	if o := do(t, "drive", p.name, "login", "alice"); o.status != 1 || o.stderr != "gauntlet: alice: login: alice is logged in already\n" {
		t.Errorf("another login: exit status %d\n%s", o.status, o.stderr)
	}
	out := drive("call", "alice", "bob", "--for", "3s")
	found := regexp.MustCompile(`media: claims punched, udp, .*; (\d+) packets sent, (\d+) received\n`).FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	// 70 packets a second (reference/papers.md section 2.1) for 3 s, both ways.
	const least = 70 * 3 * 3 / 4
	for _, count := range found[1:] {
		if n, _ := strconv.Atoi(count); n < least {
			t.Errorf("less than %d packets: %s", least, out)
		}
	}
	for router, peer := range map[string]string{"home-a": "home-b", "home-b": "home-a"} {
		if n := p.punched(t, router, p.outside(t, peer)); n < least {
			t.Errorf("%s let %d packets of a flow through each way between its LAN and %s; want %d", router, n, peer, least)
		}
	}
	p.isolated(t, "alice", "home-a", "login")

	if o := do(t, "drive", p.name, "call", "alice", "carol"); o.status != 2 || !strings.Contains(o.stderr, "expected one of alice, bob") {
		t.Errorf("an unknown callee: %d, %s", o.status, o.stderr)
	}
}

// outside is the address of a router on the internet.
func (p *project) outside(t *testing.T, router string) (outside netip.Addr) {
	t.Helper()
	p.in(t, router, func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, a := range addrs {
			if ip, _ := netip.AddrFromSlice(a.IP.To4()); netip.MustParsePrefix("198.18.0.0/16").Contains(ip) {
				outside = ip
			}
		}
		return err
	})
	return outside
}

// punched is how many packets the busiest UDP flow between a router's LAN and a
// peer had in the direction with fewer. Both tuples of it are the router's own:
// a host of the LAN on one side, the router's external address on the other.
func (p *project) punched(t *testing.T, router string, peer netip.Addr) (most int) {
	t.Helper()
	own := p.outside(t, router)
	p.in(t, router, func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		for _, f := range flows {
			ends := map[string]bool{}
			for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
				ends[ip.String()] = true
			}
			if f.Forward.Protocol == 17 && ends[own.String()] && ends[peer.String()] && len(ends) == 3 {
				most = max(most, int(min(f.Forward.Packets, f.Reverse.Packets)))
			}
		}
		return err
	})
	return most
}

// isolated checks that services reach none of the machine's own addresses, and
// that the machine has no route to theirs.
func (p *project) isolated(t *testing.T, services ...string) {
	t.Helper()
	own, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	const patience = 2 * time.Second
	dial := func(service, to string, reached bool) {
		p.in(t, service, func() error {
			conn, err := net.DialTimeout("tcp4", to, patience) // one address: dialled on this thread
			if conn != nil {
				conn.Close()
			}
			if (err == nil) != reached {
				t.Errorf("from %s to %s: %v; reached is expected to be %v", service, to, err, reached)
			}
			return nil
		})
	}
	for _, service := range services {
		dial(service, fmt.Sprintf("%v:80", p.address(t, "update")), true) // the probe works
		for _, a := range own {
			if !a.IP.IsLoopback() {
				dial(service, net.JoinHostPort(a.IP.String(), strconv.Itoa(port)), false)
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		everything := r.Dst == nil || r.Dst.IP.IsUnspecified()
		if there := p.address(t, "update"); !everything && r.Dst.Contains(there.AsSlice()) {
			t.Errorf("the machine has a route to the overlay's internet: %v", r)
		}
	}
}

// address is that of a host on one network.
func (p *project) address(t *testing.T, service string) (address netip.Addr) {
	t.Helper()
	p.in(t, service, func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, a := range addrs {
			if !a.IP.IsLoopback() {
				address, _ = netip.AddrFromSlice(a.IP.To4())
			}
		}
		return err
	})
	return address
}
