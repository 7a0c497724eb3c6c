package topo

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"gauntlet/topo/ns"
)

// parameter is one kernel parameter of a namespace.
type parameter struct {
	name, value string
	optional    bool // a kernel without it already does what the value asks
}

// everywhere is set in every namespace before it has an interface. IPv6 is not
// offered yet, and neighbour discovery would be noise in the captures. Reverse
// path filtering would drop what comes back another way, as it does behind a
// firewall whose neighbours reach it directly. A new namespace takes much of
// this over from the machine's own, so nothing is left to its default.
var everywhere = []parameter{
	{name: "net.ipv6.conf.all.disable_ipv6", value: "1", optional: true},
	{name: "net.ipv4.conf.all.rp_filter", value: "0"},
	{name: "net.ipv4.conf.default.rp_filter", value: "0"},
}

// routers is set in the namespaces of boxes and of the internet. A redirect
// (RFC 792) would lead hosts around a box. Accounting and timestamps of
// connection tracking are evidence. With br_netfilter, which Docker loads, a
// bridge would translate by itself what it bridges, and lose what goes back to
// the port that it came from, such as a hairpin's packet to its own sender.
var routers = []parameter{
	{name: "net.ipv4.ip_forward", value: "1"},
	{name: "net.ipv4.conf.all.send_redirects", value: "0"},
	{name: "net.ipv4.conf.default.send_redirects", value: "0"},
	{name: "net.ipv4.conf.all.accept_redirects", value: "0"},
	{name: "net.ipv4.conf.default.accept_redirects", value: "0"},
	{name: "net.netfilter.nf_conntrack_acct", value: "1"},
	{name: "net.netfilter.nf_conntrack_timestamp", value: "1"},
	{name: "net.bridge.bridge-nf-call-iptables", value: "0", optional: true},
}

// hosts is set in the namespaces of hosts.
var hosts = []parameter{
	{name: "net.ipv4.ip_forward", value: "0"},
}

// RouterParameters are the kernel parameters of a box or of the internet's
// router, by name, for whoever sets them by other means; those that a kernel may
// lack are left out.
func RouterParameters() map[string]string {
	all := map[string]string{}
	for _, list := range [][]parameter{everywhere, routers} {
		for _, p := range list {
			if !p.optional {
				all[p.name] = p.value
			}
		}
	}
	return all
}

// setParameters sets those of the calling thread's namespace.
func setParameters(router bool) error {
	if err := set(everywhere); err != nil {
		return err
	}
	if router {
		return set(routers)
	}
	return set(hosts)
}

func set(list []parameter) error {
	for _, p := range list {
		err := ns.WriteSysctl(p.name, p.value)
		if errors.Is(err, fs.ErrNotExist) {
			if p.optional {
				continue
			}
			if strings.HasPrefix(p.name, "net.netfilter.") {
				err = fmt.Errorf("%w (connection tracking is not in this kernel, or its module nf_conntrack is not loaded)", err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
