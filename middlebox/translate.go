package middlebox

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// masquerade takes the address of the interface, and keeps the port if it is
// free. The kernel gives every flow of an internal endpoint the same external
// one, also when the port was not free.
func masquerade() term {
	return term{"masquerade", []expr.Any{&expr.Masq{}}}
}

// masqueradeRandom takes another random port for every flow.
func masqueradeRandom() term {
	return term{"masquerade fully-random", []expr.Any{&expr.Masq{FullyRandom: true}}}
}

// snatTo chooses among several addresses: by the internal address alone if
// persistent, else by the destination too.
func snatTo(first, last netip.Addr, persistent, random bool) term {
	text := fmt.Sprintf("snat to %v-%v", first, last)
	switch {
	case random && persistent:
		text += " fully-random,persistent"
	case random:
		text += " fully-random"
	case persistent:
		text += " persistent"
	}
	return term{text, []expr.Any{
		&expr.Immediate{Register: part(reg1, 0), Data: first.AsSlice()},
		&expr.Immediate{Register: part(reg1, 1), Data: last.AsSlice()},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4,
			RegAddrMin: part(reg1, 0), RegAddrMax: part(reg1, 1),
			FullyRandom: random, Persistent: persistent,
		},
	}}
}

// dnatBy sends a packet to the internal endpoint of the external port it is
// for, as a map says. A port that isn't in the map leaves the packet alone.
func dnatBy(mapName string) term {
	return term{fmt.Sprintf("dnat to th dport map @%s", mapName), []expr.Any{
		destPort.load(reg1),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: mapName},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: part(reg1, 0), RegProtoMin: part(reg1, 1)},
	}}
}

// tuple is a field of one of the two tuples of a connection.
type tuple struct {
	text      string
	key       expr.CtKey
	direction uint32
}

var (
	originalSource     = tuple{"ct original ip saddr", expr.CtKeySRC, original}
	originalSourcePort = tuple{"ct original proto-src", expr.CtKeyPROTOSRC, original}
	originalDestPort   = tuple{"ct original proto-dst", expr.CtKeyPROTODST, original}
	replySource        = tuple{"ct reply ip saddr", expr.CtKeySRC, reply}
	replySourcePort    = tuple{"ct reply proto-src", expr.CtKeyPROTOSRC, reply}
	replyDestPort      = tuple{"ct reply proto-dst", expr.CtKeyPROTODST, reply}
)

func (t tuple) load(register uint32) expr.Any {
	return &expr.Ct{Register: register, Key: t.key, Direction: t.direction}
}

func (t tuple) String() string { return t.text }
func (f field) String() string { return f.text }

// loader is what can be put into a register: a field or a tuple.
type loader interface {
	load(register uint32) expr.Any
	String() string
}

// updateMap sets or refreshes the element from an external port to an internal
// endpoint.
func updateMap(name string, port, address, addressPort loader) term {
	return term{fmt.Sprintf("update @%s { %v : %v . %v }", name, port, address, addressPort), []expr.Any{
		port.load(reg1), address.load(part(reg2, 0)), addressPort.load(part(reg2, 1)),
		&expr.Dynset{SrcRegKey: reg1, SrcRegData: reg2, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE},
	}}
}

// updateSet sets or refreshes the element of an internal endpoint and an
// external address.
func updateSet(name string, address, port, peer field) term {
	return term{fmt.Sprintf("update @%s { %v . %v . %v }", name, address, port, peer), []expr.Any{
		address.load(part(reg1, 0)), port.load(part(reg1, 1)), peer.load(part(reg1, 2)),
		&expr.Dynset{SrcRegKey: reg1, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE},
	}}
}

// inSet matches an internal endpoint and an external address.
func inSet(name string, address, port, peer field) term {
	return term{fmt.Sprintf("%v . %v . %v @%s", address, port, peer, name), []expr.Any{
		address.load(part(reg1, 0)), port.load(part(reg1, 1)), peer.load(part(reg1, 2)),
		&expr.Lookup{SourceRegister: reg1, SetName: name},
	}}
}
