package file

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"gauntlet/compose"
	"gauntlet/topo"
)

// Limits of a container, as those of --backend docker.
const (
	memoryLimit = 512 << 20 // bytes
	pidsLimit   = 512
)

// nobody is the user that a node runs as.
const nobody = "65534"

// nowhere answers no DNS query: no name leaves the engine.
const nowhere = "127.0.0.1"

// project makes the services and networks.
func (o Overlay) project() *types.Project {
	p := &types.Project{Services: types.Services{}, Networks: types.Networks{}}
	p.Networks[internetNetwork] = o.lan(internetNetwork)
	for _, b := range o.Plan.Boxes {
		p.Networks[b.Name] = o.lan(b.Name)
	}
	nodes := map[string]Node{}
	for _, n := range o.Nodes {
		nodes[n.Name] = n
	}
	for _, h := range o.Plan.Hosts {
		n, ok := nodes[h.Name]
		p.Services[h.Name] = o.host(h, n, ok)
	}
	if len(o.Plan.Internet.Routes) > 0 { // else nobody needs more than the wire
		_, at := reserved(o.Plan.Internet.Prefix)
		p.Services[topo.InternetName] = o.router(topo.InternetName, map[string]netip.Addr{internetNetwork: at})
	}
	for _, b := range o.Plan.Boxes {
		_, at := reserved(b.LAN)
		p.Services[b.Name] = o.router(b.Name, map[string]netip.Addr{networkOf(b.Behind): b.WAN[0], b.Name: at})
	}
	chain(p)
	return p
}

// chain has the services start one after the other. Engines of version 20.10
// can lose count of a network's endpoints where many containers join or leave it
// at once, and then never remove that network (moby/moby issue 43286).
func chain(p *types.Project) {
	before := ""
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		if before != "" {
			s := p.Services[name]
			s.DependsOn = types.DependsOnConfig{before: {Condition: types.ServiceConditionStarted, Required: true}}
			p.Services[name] = s
		}
		before = name
	}
}

func networkOf(behind string) string {
	if behind == "" {
		return internetNetwork
	}
	return behind
}

// lan is the network of a box's LAN, or of the internet.
func (o Overlay) lan(name string) types.NetworkConfig {
	subnet, gateway := o.network(name)
	engine, _ := reserved(subnet)
	return types.NetworkConfig{
		Driver: "bridge",
		DriverOpts: types.Options{
			"com.docker.network.bridge.enable_ip_masquerade": "false",
			"com.docker.network.bridge.inhibit_ipv4":         "true", // the machine has no address here
		},
		Labels: types.Labels{compose.Label: "true"},
		Ipam: types.IPAMConfig{Config: []*types.IPAMPool{{
			Subnet: subnet.String(), Gateway: engine.String(),
			AuxiliaryAddresses: types.Mapping{"DefaultGatewayIPv4": gateway.String()},
		}}},
	}
}

// service is what all containers have in common.
func (o Overlay) service(name string, at map[string]netip.Addr) types.ServiceConfig {
	s := types.ServiceConfig{Name: name}
	s.Image = o.Image
	s.CapDrop = []string{"ALL"}
	s.ReadOnly = true
	s.SecurityOpt = []string{"no-new-privileges"}
	s.DNS = types.StringList{nowhere}
	s.MemLimit, s.PidsLimit = memoryLimit, pidsLimit
	s.Logging = &types.LoggingConfig{Driver: "json-file", Options: types.Options{"max-size": "4m"}}
	s.Networks = map[string]*types.ServiceNetworkConfig{}
	for network, a := range at {
		s.Networks[network] = &types.ServiceNetworkConfig{Ipv4Address: a.String()}
	}
	return s
}

// host is a host with its node, or one that rests.
func (o Overlay) host(h topo.Host, n Node, hasNode bool) types.ServiceConfig {
	s := o.service(h.Name, map[string]netip.Addr{networkOf(h.Behind): h.Addrs[0]})
	s.User = nobody
	s.Tmpfs = types.StringList{fmt.Sprintf("%s:mode=0700,uid=%s,gid=%s,size=64m", compose.StateDir, nobody, nobody)}
	s.WorkingDir = compose.StateDir
	s.Environment = environment(map[string]string{"HOME": compose.StateDir, "TMPDIR": compose.StateDir})
	s.Sysctls = types.Mapping{"net.ipv4.ip_unprivileged_port_start": "0"} // servers listen on 80 and 443
	switch {
	case !hasNode:
		s.Command = types.ShellCommand{"container", "rest"}
		s.Labels = types.Labels{compose.Label: "true"}
		return s
	case n.Image != "":
		s.Image = n.Image
	default:
		s.Command = types.ShellCommand{"node", n.Role}
	}
	s.StdinOpen = true // nodes are driven over it
	s.Labels = o.labels(n, h.Behind == "")
	return s
}

// router is a box, or the internet's router. NET_ADMIN is given up once the
// rules are loaded.
func (o Overlay) router(name string, at map[string]netip.Addr) types.ServiceConfig {
	s := o.service(name, at)
	s.Command = types.ShellCommand{"container", "router", name}
	s.CapAdd = []string{"NET_ADMIN"}
	s.Labels = types.Labels{compose.Label: "true", compose.RouterLabel: name}
	s.Environment = environment(map[string]string{TopologyVariable: o.Text})
	s.Sysctls = topo.RouterParameters()
	maps.Copy(s.Sysctls, o.Parameters[name])
	return s
}

func environment(all map[string]string) types.MappingWithEquals {
	m := types.MappingWithEquals{}
	for name, value := range all {
		m[name] = &value
	}
	return m
}
