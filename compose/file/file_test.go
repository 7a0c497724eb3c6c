package file

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"gauntlet/topo"
)

// overlay is one of a firewall and a NAT behind another.
func overlay(t *testing.T) Overlay {
	t.Helper()
	plan, err := topo.NewPlan(topo.Description{
		Boxes: []topo.BoxDescription{
			{Name: "isp", Translates: true, Addresses: 2},
			{Name: "home", Translates: true, Behind: "isp"},
			{Name: "office"},
		},
		Hosts: []topo.HostDescription{
			{Name: "login"}, {Name: "sn1"}, {Name: "alice", Behind: "home"}, {Name: "bob", Behind: "office"}, {Name: "idle", Behind: "office"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Overlay{
		Source: "x.yaml", Text: "price: $5\ntopology: {}\n", Image: "gauntlet:test", Plan: plan, Profile: "nec2006",
		Parameters: map[string]map[string]string{"home": {"net.netfilter.nf_conntrack_udp_timeout": "30"}},
		Nodes: []Node{
			{Name: "login", Role: "login"}, {Name: "sn1", Role: "supernode", Settings: json.RawMessage(`{"price":"$5","home":"${HOME}"}`)},
			{Name: "alice", Role: "client"}, {Name: "bob", Image: "somebody/node:1"},
		},
	}
}

// load reads a compose file as Docker Compose v2 does.
func load(t *testing.T, content []byte) *types.Project {
	t.Helper()
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: t.TempDir(), ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: content}},
	}, func(o *loader.Options) { o.SetProjectName("lab", true) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWrite(t *testing.T) {
	o := overlay(t)
	if problems := o.Check(); problems != nil {
		t.Fatalf("problems: %v", problems)
	}
	written, err := o.Write()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // maps have no order of their own
		again, err := o.Write()
		if err != nil || !bytes.Equal(written, again) {
			t.Fatalf("another file the second time, %v", err)
		}
	}
	p := load(t, written)
	if len(p.Services) != 9 || len(p.Networks) != 4 {
		t.Fatalf("%d services, %d networks; want 5 hosts, 3 boxes and the internet's router, 3 LANs and the internet\n%s", len(p.Services), len(p.Networks), written)
	}
	for name, n := range p.Networks {
		pool := n.Ipam.Config[0]
		if n.DriverOpts["com.docker.network.bridge.inhibit_ipv4"] != "true" || n.DriverOpts["com.docker.network.bridge.enable_ip_masquerade"] != "false" {
			t.Errorf("network %s: the machine is on it: %v", name, n.DriverOpts)
		}
		if subnet, gateway := o.network(name); pool.Subnet != subnet.String() || pool.AuxiliaryAddresses["DefaultGatewayIPv4"] != gateway.String() {
			t.Errorf("network %s: %+v", name, pool)
		}
	}
	for name, s := range p.Services {
		if len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" || !s.ReadOnly || s.SecurityOpt[0] != "no-new-privileges" || s.Privileged || s.NetworkMode != "" || len(s.Ports) > 0 {
			t.Errorf("service %s is less confined than it could be", name)
		}
		_, box := o.Plan.Box(name)
		if router := box || name == "internet"; router != (len(s.CapAdd) == 1 && s.CapAdd[0] == "NET_ADMIN") || router == (s.User == nobody) || s.StdinOpen != (!router && name != "idle") {
			t.Errorf("service %s: capabilities %v, user %q, stdin open: %v", name, s.CapAdd, s.User, s.StdinOpen)
		}
	}
	home := p.Services["home"]
	if got := *home.Environment[TopologyVariable]; got != o.Text {
		t.Errorf("the router's topology is %q, want %q", got, o.Text)
	}
	if home.Sysctls["net.netfilter.nf_conntrack_udp_timeout"] != "30" || home.Sysctls["net.ipv4.ip_forward"] != "1" {
		t.Errorf("the router's parameters are %v", home.Sysctls)
	}
	isp, _ := o.Plan.Box("isp")
	homeBox, _ := o.Plan.Box("home")
	if n := home.Networks; len(n) != 2 || n["isp"].Ipv4Address != homeBox.WAN[0].String() || !isp.LAN.Contains(netip.MustParseAddr(n["isp"].Ipv4Address)) {
		t.Errorf("home is on %v", n)
	}
	if s := p.Services["bob"]; s.Image != "somebody/node:1" || len(s.Command) != 0 {
		t.Errorf("bob runs %s %v", s.Image, s.Command)
	}
	if l := p.Services["sn1"].Labels; l["gauntlet.settings"] != `{"price":"$5","home":"${HOME}"}` || l["gauntlet.public"] != "true" || l["gauntlet.role"] != "supernode" {
		t.Errorf("sn1's labels are %v", l)
	}
}

// The file that is in the repository is one that Docker Compose v2 takes.
func TestCommittedFile(t *testing.T) {
	content, err := os.ReadFile("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p := load(t, content); len(p.Services) < 10 {
		t.Errorf("%d services", len(p.Services))
	}
}

func TestCheck(t *testing.T) {
	o := overlay(t)
	o.Plan.Boxes[0].Link.Up.Rate = 1000
	o.Plan.Hosts[0].Link.Down.Rate = 1000
	o.Plan.Hosts[1].Addrs = append(o.Plan.Hosts[1].Addrs, netip.MustParseAddr("198.18.255.253"))
	o.Nodes[2].Exec = true
	o.Programs = map[string][]string{"home": {"port_mapping: true"}}
	var got []string
	for _, p := range o.Check() {
		got = append(got, strings.Join(p.Path, ".")+": "+p.Message)
	}
	want := []string{
		"topology.middleboxes.isp.link: a compose file can't shape links",
		"topology.middleboxes.home: port_mapping: true needs a program of the machine",
		"topology.hosts.login.link: a compose file can't shape links",
		"topology.hosts.sn1.ip: a container has one address in a network, and 2 are given",
		"topology.hosts.sn1: its address 198.18.255.253 is one of the two that the engine needs in 198.18.0.0/16",
		"nodes.alice.exec: an executable of the machine can't run in a container",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

func TestReserved(t *testing.T) {
	for subnet, want := range map[string][2]string{
		"10.0.1.0/24":   {"10.0.1.254", "10.0.1.253"},
		"198.18.0.0/16": {"198.18.255.254", "198.18.255.253"},
		"10.4.4.0/22":   {"10.4.7.254", "10.4.7.253"},
	} {
		engine, router := reserved(netip.MustParsePrefix(subnet))
		if engine.String() != want[0] || router.String() != want[1] {
			t.Errorf("%s: %v and %v, want %v", subnet, engine, router, want)
		}
	}
}
