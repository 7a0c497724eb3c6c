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
	if f.UDPUnreplied != f.UDPTimeout {
		addf("udp_unreplied_timeout: an endpoint that nobody has answered can be reached no longer, and has its external port for as long as any other")
	}
	if f.TCPTransitory < TCPWaiting {
		addf("tcp_transitory: %v is not for a connection whose SYNs have crossed and which goes no further: for %v it is in the way of the next endpoint that has its external port, towards the same peer", f.TCPTransitory, TCPWaiting)
	}
	if f.Mapping != MapAddressAndPortDependent {
		addf("tcp_transitory: when one of several TCP connections of an internal endpoint ends, the external port that they share is kept for %v from then on, until another of them sends", f.TCPTransitory)
	}
	if f.Refresh == RefreshOutbound {
		addf("refresh: outbound is of UDP; a TCP connection is refreshed by both directions")
		addf("refresh: outbound: an external port that lets nothing in any more stays its endpoint's, and nobody else's, until udp_timeout after the last packet that it let in")
	}
	if f.Mapping != MapEndpointIndependent && f.Filtering != FilterAddressAndPortDependent {
		addf("mapping: %s with filtering: %s shows in connection tracking as two flows where a peer comes in by another external port than the one that its answers take; ICMP errors about what came in so stop at the box", f.Mapping, f.Filtering)
	}
	if f.PortMapping {
		addf("port_mapping: a port that is given to a host inside by a mapping may be taken by another host in the milliseconds before the box keeps to it; that host then loses it, with its flows, as does one that had the port before")
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
		if f.Refresh != RefreshOutbound {
			addf("hairpin: with refresh: both, what comes from inside keeps the mapping of its receiver no longer than the receiver's answers do")
		}
	}
	if f.Hairpin && f.Mapping != MapEndpointIndependent {
		addf("hairpin: with mapping: %s, an answer over TCP leaves from the external endpoint that was sent to, as the connection wants; a SYN to a host inside that has a connection with just the sender's external endpoint by another of its own is lost without a rule that says so", f.Mapping)
		addf("hairpin: with mapping: %s and several external addresses, an answer over UDP leaves from the external endpoint that was sent to where both ends have the same external port at two of them", f.Mapping)
	}
	if f.Ports != PreservePorts {
		addf("ports: %s tries %d ports before a packet is dropped, so that a few may be left when it is", f.Ports, portTries)
	}
	return notes
}
