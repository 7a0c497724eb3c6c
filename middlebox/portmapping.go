package middlebox

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// PortMapping is a mapping that a host inside has asked the box for, until it
// gives it back or its lifetime is over: by AddPortMapping of UPnP IGD, NAT-PMP
// (RFC 6886 §3.3) or PCP (RFC 6887 §11). Who sends to External is let in,
// whatever the box's filtering.
type PortMapping struct {
	Protocol Protocol
	Internal netip.AddrPort
	External netip.AddrPort
}

// MappedMark is the bit of connection tracking's mark (ct mark) that flows of an
// endpoint have which has a port mapping. It tells those who read connection
// tracking that the box did not filter such a flow.
const MappedMark = 4

// Names of the sets of port mappings. They are filled by Loader.MapPorts.
func mappedSet(p Protocol) string { return "mapped-" + string(p) } // external endpoints
func askedMap(p Protocol) string  { return "asked-" + string(p) }  // internal endpoint to external one

// askedFor says whether a set is one of port mappings.
func askedFor(name string) bool {
	return slices.ContainsFunc(transports, func(p Protocol) bool { return name == mappedSet(p) || name == askedMap(p) })
}

// portMapping checks what goes with port mappings.
func (v *validator) portMapping(b Behaviour) {
	switch {
	case !b.PortMapping:
	case !b.Translates():
		v.addf("port_mapping: true without mapping means nothing, since a firewall has no external ports to give; expected a mapping, or no port_mapping")
	case b.Refresh == RefreshOutbound:
		v.addf("port_mapping: true with refresh: outbound is not offered; expected refresh: both, since such a box drops what has no mapping of its own before the asked ones are looked at")
	case b.Mapping != MapEndpointIndependent && b.filled().Filtering != FilterAddressAndPortDependent:
		v.addf("port_mapping: true with mapping: %s and filtering: %s is not offered; expected mapping: endpoint-independent or filtering: address-and-port-dependent, since such a box keeps who comes uninvited apart from who is answered, and an answer might leave from another port than the mapped one", b.Mapping, b.filled().Filtering)
	case b.Unsolicited == ConfirmUnsolicited:
		v.addf("port_mapping: true with unsolicited: confirm is not offered; expected drop or reject, since such a box leaves its ports to connection tracking, which would give a mapped one to somebody else")
	}
}

// declareMapped adds the sets of port mappings. What is in them stays until it
// is taken out.
func (g *generator) declareMapped() {
	if !g.b.PortMapping {
		return
	}
	for _, p := range transports {
		g.rs.sets = append(g.rs.sets,
			set{name: mappedSet(p), key: endpoints(2), comment: fmt.Sprintf("External %s endpoints that were asked for.", p)},
			set{name: askedMap(p), key: endpoints(2), data: endpoints(2), comment: "Internal endpoint that asked for one, and which."})
	}
}

// taken are the sets whose external endpoints belong to somebody.
func (g *generator) taken(p Protocol) []string {
	if g.b.PortMapping {
		return []string{internalMap(p), mappedSet(p)}
	}
	return []string{internalMap(p)}
}

// asked gives a flow from inside the external endpoint that was asked for: RFC
// 6887 §11.1 has the mapping serve both directions.
func (g *generator) asked(p Protocol) []rule {
	if !g.b.PortMapping {
		return nil
	}
	return []rule{{
		comment: "port_mapping: what has asked for an external endpoint sends from it.",
		terms:   []term{l4proto(p), inSet(askedMap(p), source, sourcePort), setMark(MappedMark), snatAsked(p)},
	}}
}

// mapped lets in what a port mapping is for.
func (g *generator) mapped() []rule {
	if !g.b.PortMapping {
		return nil
	}
	return []rule{{comment: "port_mapping: whoever sends to a port that was asked for.", terms: []term{iif(g.WAN), marked(MappedMark), accept()}}}
}

// snatAsked gives a packet the external endpoint that its internal one has asked
// for.
func snatAsked(p Protocol) term {
	key := []loader{source, sourcePort}
	exprs := append(loadAll(reg1, key),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg2, IsDestRegSet: true, SetName: askedMap(p)}, snatToOne(reg2))
	return term{fmt.Sprintf("snat to %s map @%s random", names(key), askedMap(p)), exprs}
}

func ipv4Only() term {
	return term{"meta nfproto ipv4", []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, equal([]byte{byte(nftables.TableFamilyIPv4)})}}
}

// Names in the table of family inet that belongs to the program which makes the
// port mappings. It fills the three chains; those who call them are ours.
const (
	PortMappingTable       = "portmapping"
	PortMappingPrerouting  = "dnat"
	PortMappingForward     = "let-in"
	PortMappingPostrouting = "snat"
)

// priorityPortMapping is before the box's own destinations: a port that was
// asked for belongs to who asked.
const priorityPortMapping = priorityDestinationNAT - 10

// queuePortMapping queues the messages that make that table anew, for one
// external address.
func queuePortMapping(conn *nftables.Conn, wan string, external netip.Addr) {
	t := portMappingTable()
	conn.AddTable(t)
	conn.DelTable(t)
	conn.CreateTable(t)
	for _, name := range []string{PortMappingPrerouting, PortMappingForward, PortMappingPostrouting} {
		conn.AddChain(&nftables.Chain{Name: name, Table: t})
	}
	priority, accept := nftables.ChainPriority(priorityPortMapping), nftables.ChainPolicyAccept
	base := &nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: &priority, Policy: &accept,
	}
	conn.AddChain(base)
	// The program's rule ends the look-up, so that the mark stays where one
	// matches, and is taken back where none does.
	for _, r := range []rule{
		{terms: []term{iif(wan), ipv4Only(), addressIs(destination, external), setMark(MappedMark), jump(PortMappingPrerouting)}},
		{terms: []term{iif(wan), marked(MappedMark), unmark()}},
	} {
		conn.AddRule(&nftables.Rule{Table: t, Chain: base, Exprs: r.exprs()})
	}
}

func portMappingTable() *nftables.Table {
	return &nftables.Table{Name: PortMappingTable, Family: nftables.TableFamilyINet}
}
