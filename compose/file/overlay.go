// Package file writes compose files: an overlay in containers, each node in one
// of its own behind routers that are containers too, for Docker Compose of both
// generations (v2 and docker-compose 1.29).
//
// Every LAN of the topology and its internet is a network of the engine. None
// of them leads out of the engine: the machine has no address on any of the
// bridges and no route to them, and nothing is masqueraded.
//
//	alice ──[home-a]── home-a ──[internet]── home-b ──[home-b]── bob
//	  default route ──►           login, update, sn1 …
//
// A container's default route leads to the box that it is behind, without the
// container having a say in it: the engine takes the gateway that it hands to
// containers from the auxiliary address DefaultGatewayIPv4 of a network.
package file

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"gauntlet/compose"
	"gauntlet/topo"
)

// TopologyVariable is the environment variable by which a router knows the
// topology: the text of the scenario file.
const TopologyVariable = "GAUNTLET_TOPOLOGY"

// RouterReady is the line that a router writes to stdout once it forwards.
const RouterReady = "the router is up"

// internetNetwork is the network of all public hosts and outermost boxes.
const internetNetwork = topo.InternetName

// Overlay is what a compose file is made of.
type Overlay struct {
	Source string // base name of the scenario file
	Text   string // and what is in it
	Image  string // of the gauntlet binary
	Plan   *topo.Plan
	// Parameters are the kernel parameters that belong to the rules of each
	// box, by the box's name.
	Parameters map[string]map[string]string
	// Programs are the keys of what a box does by a program of the machine, such as
	// "port_mapping: true", by the box's name.
	Programs map[string][]string
	Profile  string
	Nodes    []Node
}

// Node is one node of the overlay.
type Node struct {
	Name     string // of its host too
	Role     string
	Exec     bool   // it is an executable of the machine
	Image    string // it is an image of its own
	Settings json.RawMessage
}

// Check says what of the overlay a compose file has no words for. A problem's
// path is that in the scenario file.
func (o Overlay) Check() (problems []topo.Problem) {
	wrong := func(path []string, format string, args ...any) {
		problems = append(problems, topo.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	for _, b := range o.Plan.Boxes {
		path := []string{"topology", "middleboxes", b.Name}
		for _, key := range o.Programs[b.Name] {
			wrong(path, "%s needs a program of the machine, which no container of a compose file has; expected a box without", key)
		}
		if b.Link != (topo.Link{}) {
			wrong(append(path, "link"), "a compose file can't shape links; expected none")
		}
		o.place(wrong, path, b.Behind, b.WAN)
	}
	for _, h := range o.Plan.Hosts {
		path := []string{"topology", "hosts", h.Name}
		if h.Link != (topo.Link{}) {
			wrong(append(path, "link"), "a compose file can't shape links; expected none")
		}
		if len(h.Addrs) > 1 {
			wrong(append(path, "ip"), "a container has one address in a network, and %d are given; expected one", len(h.Addrs))
		}
		o.place(wrong, path, h.Behind, h.Addrs)
	}
	for _, n := range o.Nodes {
		if n.Exec {
			wrong([]string{"nodes", n.Name, "exec"}, "an executable of the machine can't run in a container; expected a role or image: NAME")
		}
	}
	return problems
}

// place checks that addresses are not those that the engine needs.
func (o Overlay) place(wrong func([]string, string, ...any), path []string, behind string, addrs []netip.Addr) {
	subnet, _ := o.network(behind)
	engine, router := reserved(subnet)
	for _, a := range addrs {
		if a == engine || a == router {
			wrong(path, "its address %v is one of the two that the engine needs in %v; expected another, or fewer members of that network", a, subnet)
		}
	}
}

// network is the subnet that a box's LAN, or the internet, is, and the address
// of the router in it.
func (o Overlay) network(name string) (subnet netip.Prefix, gateway netip.Addr) {
	if b, ok := o.Plan.Box(name); ok {
		return b.LAN, b.LANAddr
	}
	return o.Plan.Internet.Prefix, o.Plan.Internet.Addr
}

// reserved are the last two addresses of a subnet that hosts could have: one
// that the engine wants for itself and never uses, and one that it gives to the
// router, until that takes the gateway's.
func reserved(subnet netip.Prefix) (engine, router netip.Addr) {
	a := subnet.Masked().Addr().As4()
	size := uint32(1)<<(32-subnet.Bits()) - 1
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n += size - 1 // the last is for broadcasts
	engine = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return engine, engine.Prev()
}

// labels are those by which gauntlet drive finds a node.
func (o Overlay) labels(n Node, public bool) map[string]string {
	l := map[string]string{
		compose.Label: "true", compose.NodeLabel: n.Name, compose.RoleLabel: n.Role,
		compose.ProfileLabel: o.Profile, compose.PublicLabel: strconv.FormatBool(public),
	}
	if len(n.Settings) > 0 {
		l[compose.SettingsLabel] = string(n.Settings)
	}
	return l
}
