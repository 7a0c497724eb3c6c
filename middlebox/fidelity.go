package middlebox

import "fmt"

// Fidelity returns in what a box of this behaviour differs from a device that
// does the same, since the kernel can't do otherwise. A valid behaviour that
// has none returns nil.
func (b Behaviour) Fidelity() (notes []string) {
	f := b.filled()
	addf := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if !f.Translates() {
		return notes
	}
	if f.Unsolicited == ConfirmUnsolicited {
		addf("unsolicited: confirm leaves ports to connection tracking, which may give one external port to two internal endpoints with different destinations (port overloading, RFC 4787 REQ-3)")
		return notes
	}
	if f.Refresh == RefreshOutbound {
		addf("refresh: outbound is of UDP; a TCP connection is refreshed by both directions")
	}
	if f.Mapping != MapEndpointIndependent && f.Filtering != FilterAddressAndPortDependent {
		addf("mapping: %s with filtering: %s shows in connection tracking as two flows where a peer comes in by another external port than the one that its answers take; ICMP errors about what came in so stop at the box", f.Mapping, f.Filtering)
	}
	if f.PortMapping {
		addf("port_mapping: a port that is given to a host inside by a mapping may be taken by another host in the milliseconds before the box keeps to it; that host then loses it")
		addf("port_mapping: no well-known port is given, and mappings go with the box's power, whatever their lifetime")
	}
	if f.PortMapping && f.Hairpin {
		addf("port_mapping: with hairpin: true, a mapped port is reached from inside only once its endpoint has sent something")
	}
	if f.TCPFiltering != FilterAddressAndPortDependent {
		addf("tcp_filtering: %s lets in a SYN, and no segment of a connection that the box doesn't know; nor the SYN of a peer from whose port the internal endpoint has a connection by another external port", f.TCPFiltering)
	}
	if f.Hairpin {
		addf("hairpin: a host that sends to an external endpoint of its own doesn't reach it")
	}
	if f.Ports != PreservePorts {
		addf("ports: %s tries %d ports before a packet is dropped, so that a few may be left when it is", f.Ports, portTries)
	}
	return notes
}
