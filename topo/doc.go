// Package topo turns the description of a small internet into network
// namespaces, links and addresses.
//
// It works in two steps. NewPlan is pure: from a Description it computes every
// address, route and interface, and the Plan it returns is a value that can be
// written to a file. Build makes what a Plan says in the kernel, by netlink
// alone.
//
//	                internet: br0 198.18.0.1/16
//	     p1 |              p2 |               p3 |
//	  wan 198.18.1.1    wan 198.18.1.2     eth0 198.18.1.3
//	  home-a            office             login
//	  lan 10.0.1.1/24   lan 198.19.1.1/24
//	lan1 |             lan1 |
//	  eth0 10.0.1.2      eth0 198.19.1.2
//	  alice              carol
//
// The internet is a bridge in a namespace of its own, which is also a router:
// all packets between those on it go through that router, none has another for
// a neighbour.
// A middlebox is a router between its wan and its lan, and boxes may stand
// behind boxes. Its rules are no business of this package.
//
// An uplink may have a rate, which tbf keeps at both ends, and delay, jitter and
// loss, which are made between them, out of sight of every capture: see links.
package topo
