package middlebox

import (
	"slices"
	"time"
)

// device is the preset of a real device or service.
type device struct {
	name      string
	behaviour Behaviour
	unlike    []string // see Unlike
}

// devices have their documented defaults, each value with its source. What no
// source says is left at the RFCs' default, and the comment says so. A device
// whose mapping or filtering has no source isn't here; what an administrator
// configures, or another release has, may differ.
var devices = []device{
	// Linux with a masquerade and nothing else: no packet filter. It keeps the
	// mapping that an endpoint has, or else its port, wherever that gives no other
	// flow's tuple (net/netfilter/nf_nat_core.c, get_unique_tuple), and its own
	// address is open. UDP 30 s, streams 120 s, TCP 5 days, 120 s after a SYN
	// (Documentation/networking/nf_conntrack-sysctl.rst).
	{"linux", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: PreservePorts, Unsolicited: ConfirmUnsolicited,
		UDPTimeout: 2 * time.Minute, UDPUnreplied: 30 * time.Second, TCPEstablished: 5 * 24 * time.Hour, TCPTransitory: 2 * time.Minute,
	}, []string{
		"tcp_transitory: Linux waits 60 s for the end of a handshake and of a half-closed connection, and 30 s for the last acknowledgment",
	}},

	// OpenWrt as delivered: Linux with its masquerade on the zone wan, whose input
	// is REJECT (firewall4, root/etc/config/firewall). UDP 60 s, streams 180 s, TCP
	// 7440 s (package/kernel/linux/files/sysctl-nf-conntrack.conf), the rest is
	// Linux's.
	{"openwrt", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: PreservePorts, Unsolicited: RejectUnsolicited,
		UDPTimeout: 3 * time.Minute, UDPUnreplied: time.Minute, TCPEstablished: 7440 * time.Second, TCPTransitory: 2 * time.Minute,
	}, []string{
		"tcp_transitory: Linux waits 60 s for the end of a handshake and of a half-closed connection, and 30 s for the last acknowledgment",
		"ports: Linux gives one to several endpoints if their destinations differ",
	}},

	// FreeBSD's and OpenBSD's packet filter, which pfSense and OPNsense configure,
	// with "nat" and "block all". It looks for a free port for each state, that is
	// for each destination, from a random one on (FreeBSD sys/netpfil/pf/pf_lb.c,
	// pf_get_sport); only a state lets in. UDP ends 60 s after the first packet,
	// and so it does once both ends have sent; an established TCP connection after
	// 24 h, a lone SYN after 120 s (sys/netpfil/pf/pf.h, PFTM_*_VAL, in the words
	// of pf.conf(5), "set timeout").
	{"pf", Behaviour{
		Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: RandomPorts,
		UDPTimeout: time.Minute, TCPEstablished: 24 * time.Hour, TCPTransitory: 2 * time.Minute,
	}, []string{
		"ports: pf gives those from 50001 on (sbin/pfctl/pfctl_parser.h, PF_NAT_PROXY_PORT_LOW), and one to several endpoints if their destinations differ",
		"udp_timeout: pf gives an endpoint that sends again without an answer 30 s (udp.single)",
	}},

	// The same with "static-port", which leaves the source port as it is
	// (pf.conf(5), "POOL OPTIONS"), so that it is the same for all destinations.
	{"pf-static-port", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: PreservePorts,
		UDPTimeout: time.Minute, TCPEstablished: 24 * time.Hour, TCPTransitory: 2 * time.Minute,
	}, []string{
		"ports: of two endpoints with one port and one destination, pf lets out the first alone; here the second gets another port",
		"udp_timeout: pf gives an endpoint that sends again without an answer 30 s (udp.single)",
	}},

	// Cisco ASA's dynamic PAT. The real source port if it is free; the binding is
	// one for all destinations, which extended PAT gives up (Cisco ASA Series
	// Firewall CLI Configuration Guide, "Configuring Twice NAT", guidelines for a
	// PAT pool). A remote host needs an access rule to get in, and there is none.
	// UDP 2 minutes, connections an hour ("Configure Global Timeouts"), those half
	// open 30 s ("Configuring Connection Settings", embryonic).
	{"cisco-asa", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: PreservePorts,
		UDPTimeout: 2 * time.Minute, TCPEstablished: time.Hour, TCPTransitory: 30 * time.Second,
	}, []string{
		"ports: where the real one is taken, ASA chooses below 512, from 512 to 1023 or above, as the real one is; here always above",
		"tcp_transitory: ASA keeps a half-closed connection for 10 minutes",
	}},

	// Palo Alto Networks' firewalls with dynamic IP and port translation, which is
	// symmetric unless made persistent (PAN-OS New Features Guide 10.1,
	// "Persistent NAT for DIPP"). UDP 30 s, TCP 3600 s, before the handshake is
	// over 5 s (Palo Alto Networks Knowledge Base, "Order of Processing Timeout
	// Values"). How ports are chosen no source says: at random, the default.
	{"pan-os", Behaviour{
		Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: RandomPorts,
		UDPTimeout: 30 * time.Second, TCPEstablished: time.Hour, TCPTransitory: 5 * time.Second,
	}, []string{
		"tcp_transitory: PAN-OS keeps a connection for 30 s after a FIN or RST",
		"udp_timeout: PAN-OS has others for the applications that it recognizes",
	}},

	// Juniper's services interfaces. The type of NAT is symmetric unless
	// configured as full cone (Junos OS CLI reference, "nat-type", [edit services
	// nat rule]). 30 s for flows, of TCP too ("inactivity-timeout", [edit
	// interfaces services-options]), 30 s for a TCP connection to be established
	// ("open-timeout"). How ports are chosen no source says: at random, the
	// default.
	{"junos-services", Behaviour{
		Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: RandomPorts,
		UDPTimeout: 30 * time.Second, TCPEstablished: 30 * time.Second, TCPTransitory: 30 * time.Second,
	}, nil},

	// D-Link's NetDefend firewalls. Each connection gets a port of its own,
	// a free one at random (D-Link NetDefendOS User Manual §7.2), and what comes
	// back is compared with the connections that are open. UDP 130 s, which only
	// the side that opened it prolongs, TCP 262,144 s, before it is established
	// 60 s (§13.5).
	{"netdefendos", Behaviour{
		Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Ports: RandomPorts, Refresh: RefreshOutbound,
		UDPTimeout: 130 * time.Second, TCPEstablished: 262144 * time.Second, TCPTransitory: time.Minute,
	}, []string{
		"tcp_transitory: NetDefendOS keeps a closing connection for 80 s",
	}},

	// The outbound rules of Azure's load balancer. UDP is translated by a
	// port-restricted cone, 1024 ports for each of up to 50 machines, and a flow
	// that was idle for 4 minutes is dropped silently (Azure Load Balancer,
	// "Outbound connections", of September 2020: "SNAT ports (UDP)", "Dynamic SNAT
	// ports preallocation", "Outbound flow idle timeout and TCP reset"). It has no
	// timer for connections that are not established: the RFCs' default.
	{"azure-load-balancer", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: BlockPorts, PortBlock: 1024,
		UDPTimeout: 4 * time.Minute, TCPIdle: 4 * time.Minute,
	}, []string{
		"mapping: Azure gives one port to several TCP connections if their destinations differ",
	}},

	// Google's Cloud NAT with endpoint-independent mapping, which is an option
	// (Compute Engine API, RouterNat, enableEndpointIndependentMapping). Only
	// responses to what was sent get in (Cloud NAT overview). UDP 30 s, TCP 1200
	// s, transitory 30 s (RouterNat, *IdleTimeoutSec); 64 ports for a machine
	// (Terraform's google_compute_router_nat, min_ports_per_vm).
	{"google-cloud-nat", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Ports: BlockPorts, PortBlock: 64,
		UDPTimeout: 30 * time.Second, TCPEstablished: 20 * time.Minute, TCPTransitory: 30 * time.Second,
	}, nil},

	// The network of QEMU's "-netdev user" and of slirp4netns, which are libslirp.
	// An endpoint inside has one UDP socket of the host, found by the endpoint
	// alone, and whatever comes to it is passed on (libslirp src/udp.c, udp_input;
	// src/socket.c, sorecvfrom). It lives 240 s after any packet (src/socket.h,
	// SO_EXPIRE). Its port is whatever the host gives: at random. It has no timers
	// for TCP: the RFCs' default.
	{"slirp", Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterEndpointIndependent, Ports: RandomPorts,
		UDPTimeout: 4 * time.Minute,
	}, []string{
		"slirp ends TCP connections itself and makes its own, so that a segment of a host never gets out as it is, and none can be opened from both ends at once",
		"udp_timeout: slirp forgets an endpoint that has asked port 53 10 s after the answer (SO_EXPIREFAST)",
	}},
}

func ofDevices() []preset {
	all := make([]preset, len(devices))
	for i, d := range devices {
		all[i] = preset{d.name, d.behaviour}
	}
	return all
}

// Devices returns the names of the presets of real devices and services.
func Devices() []string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.name
	}
	return names
}

// Unlike returns in what a device differs from the preset of its name, since
// there is no word for it. In what a box differs from a device of the same
// words is Fidelity's.
func Unlike(name string) []string {
	i := slices.IndexFunc(devices, func(d device) bool { return d.name == name })
	if i < 0 {
		return nil
	}
	return slices.Clone(devices[i].unlike)
}
