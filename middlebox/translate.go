package middlebox

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables/binaryutil"
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

// dnatBy sends a packet to the internal endpoint of the external one it is
// for, as a map says. An endpoint that isn't in the map leaves the packet
// alone.
func dnatBy(mapName string) term {
	return term{fmt.Sprintf("dnat to ip daddr . th dport map @%s", mapName), []expr.Any{
		destination.load(part(reg1, 0)), destPort.load(part(reg1, 1)),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg2, IsDestRegSet: true, SetName: mapName},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: part(reg2, 0), RegProtoMin: part(reg2, 1)},
	}}
}

// hairpinBy does the same to a packet from inside, and marks its connection,
// which is new.
func hairpinBy(mapName string) term {
	t := dnatBy(mapName)
	last := len(t.exprs) - 1
	exprs := append(t.exprs[:last:last],
		&expr.Immediate{Register: reg1, Data: binaryutil.NativeEndian.PutUint32(hairpinMark)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1, SourceRegister: true}, t.exprs[last])
	return term{fmt.Sprintf("ct mark set %d %s", hairpinMark, t.text), exprs}
}

// Marks of connections, a bit each beside MappedMark.
const (
	hairpinMark = 1 // it turns around in the box
	closingMark = 2 // of TCP: one end has closed or reset it
)

func marked(bit uint32) term {
	return ctMask(fmt.Sprintf("ct mark & %d != 0", bit), expr.CtKeyMARK, bit)
}

func notMarked(bit uint32) term {
	return term{fmt.Sprintf("ct mark & %d == 0", bit), []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4)},
		equal(make([]byte, 4)),
	}}
}

// setMark marks a connection, which keeps its other marks.
func setMark(bit uint32) term {
	return term{fmt.Sprintf("ct mark set ct mark | %d", bit), []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bit), Xor: binaryutil.NativeEndian.PutUint32(bit),
		},
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1, SourceRegister: true},
	}}
}

// unmark takes all marks from a connection.
func unmark() term {
	return term{"ct mark set 0", []expr.Any{
		&expr.Immediate{Register: reg1, Data: make([]byte, 4)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1, SourceRegister: true},
	}}
}

func hairpinned() term { return marked(hairpinMark) }

// snatToKept gives a packet the external endpoint that the map has for its key.
// A plain box refreshes a UDP mapping here; a TCP mapping may have a longer life
// than a connection that only begins would give it.
func (g *generator) snatToKept(p Protocol) term {
	key := g.key(source, sourcePort)
	exprs := append(loadAll(reg1, key),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg2, IsDestRegSet: true, SetName: externalMap(p)})
	kept := fmt.Sprintf("%s map @%s", names(key), externalMap(p))
	text := ""
	if g.plain() && p == UDP {
		exprs = append(exprs, updateBoth(p, reg2, reg1, 0)...)
		text = updateText(p, kept, names(key), 0) + " "
	}
	return term{text + "snat to " + kept + " random", append(exprs, snatToOne(reg2))}
}

// snatToOne translates to the one external endpoint that a register holds. That
// it may be any of these ports has the kernel look whether a flow has it: which
// sweeps away one that has run out. To a port that is the internal one already
// it would go without a look, and lose the packet to what it hasn't swept.
func snatToOne(register uint32) expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4,
		RegAddrMin: part(register, 0), RegProtoMin: part(register, 1), Random: true,
	}
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
	originalDest       = tuple{"ct original ip daddr", expr.CtKeyDST, original}
	originalDestPort   = tuple{"ct original proto-dst", expr.CtKeyPROTODST, original}
	replySource        = tuple{"ct reply ip saddr", expr.CtKeySRC, reply}
	replySourcePort    = tuple{"ct reply proto-src", expr.CtKeyPROTOSRC, reply}
	replyDest          = tuple{"ct reply ip daddr", expr.CtKeyDST, reply}
	replyDestPort      = tuple{"ct reply proto-dst", expr.CtKeyPROTODST, reply}
)

// load loads it. The kernel reads the direction as one byte, and google/nftables
// v0.3.0 sends it as four, the highest first: unshifted, the reply's tuple would
// be taken for the original one.
func (t tuple) load(register uint32) expr.Any {
	return &expr.Ct{Register: register, Key: t.key, Direction: t.direction << 24}
}

func (t tuple) String() string { return t.text }
func (f field) String() string { return f.text }

// loader is what can be put into a register: a field or a tuple.
type loader interface {
	load(register uint32) expr.Any
	String() string
}

// loadAll puts fields one after the other into a 128-bit register.
func loadAll(register uint32, key []loader) (exprs []expr.Any) {
	for i, l := range key {
		exprs = append(exprs, l.load(part(register, uint32(i))))
	}
	return exprs
}

// names writes a key as nft does.
func names(key []loader) string {
	texts := make([]string, len(key))
	for i, l := range key {
		texts[i] = l.String()
	}
	return strings.Join(texts, " . ")
}

// element is one that is set or refreshed, or, with NFT_DYNSET_OP_ADD, set
// unless it is there.
func element(op uint32, name string, key, data uint32, life time.Duration) expr.Any {
	return &expr.Dynset{SrcRegKey: key, SrcRegData: data, SetName: name, Operation: op, Timeout: life}
}

func timeoutText(life time.Duration) string {
	if life == 0 {
		return ""
	}
	return " timeout " + lifetime(life)
}

// updateBoth sets or refreshes a mapping both ways round. The registers hold
// the external endpoint and the key. A life of 0 is the maps' own.
func updateBoth(p Protocol, outside, key uint32, life time.Duration) []expr.Any {
	return both(unix.NFT_DYNSET_OP_UPDATE, p, outside, key, life)
}

func both(op uint32, p Protocol, outside, key uint32, life time.Duration) []expr.Any {
	return []expr.Any{element(op, internalMap(p), outside, key, life), element(op, externalMap(p), key, outside, life)}
}

func updateText(p Protocol, outside, key string, life time.Duration) string {
	t := timeoutText(life)
	return fmt.Sprintf("update @%s { %s%s : %s } update @%s { %s%s : %s }", internalMap(p), outside, t, key, externalMap(p), key, t, outside)
}

// updateMapping does so for an external endpoint and a key that are fields.
func updateMapping(p Protocol, outside, key []loader, life time.Duration) term {
	exprs := append(append(loadAll(reg1, key), loadAll(reg2, outside)...), updateBoth(p, reg2, reg1, life)...)
	return term{updateText(p, names(outside), names(key), life), exprs}
}

// addMapping sets a mapping that isn't there, and leaves alone what is.
func addMapping(p Protocol, outside, key []loader, life time.Duration) term {
	exprs := append(append(loadAll(reg1, key), loadAll(reg2, outside)...), both(unix.NFT_DYNSET_OP_ADD, p, reg2, reg1, life)...)
	return term{strings.ReplaceAll(updateText(p, names(outside), names(key), life), "update @", "add @"), exprs}
}

// refreshMapping refreshes the mapping of the external endpoint that a packet
// came to. A life of 0 is the maps' own.
func refreshMapping(p Protocol, address, port loader, life time.Duration) term {
	outside := []loader{address, port}
	exprs := append(loadAll(reg1, outside),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg2, IsDestRegSet: true, SetName: internalMap(p)})
	w := names(outside)
	return term{updateText(p, w, fmt.Sprintf("%s map @%s", w, internalMap(p)), life), append(exprs, updateBoth(p, reg1, reg2, life)...)}
}

// updateSet sets or refreshes an element.
func updateSet(name string, key ...loader) term {
	return term{fmt.Sprintf("update @%s { %s }", name, names(key)), append(loadAll(reg1, key),
		&expr.Dynset{SrcRegKey: reg1, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE})}
}

// addToSet sets an element that isn't there, and leaves alone what is.
func addToSet(name string, life time.Duration, key ...loader) term {
	return term{fmt.Sprintf("add @%s { %s%s }", name, names(key), timeoutText(life)), append(loadAll(reg1, key),
		&expr.Dynset{SrcRegKey: reg1, SetName: name, Operation: unix.NFT_DYNSET_OP_ADD, Timeout: life})}
}

// inSet matches what is in a set, or a key of a map.
func inSet(name string, key ...loader) term {
	return term{fmt.Sprintf("%s @%s", names(key), name), append(loadAll(reg1, key),
		&expr.Lookup{SourceRegister: reg1, SetName: name})}
}

// notInSet matches what is not.
func notInSet(name string, key ...loader) term {
	return term{fmt.Sprintf("%s != @%s", names(key), name), append(loadAll(reg1, key),
		&expr.Lookup{SourceRegister: reg1, SetName: name, Invert: true})}
}

// zone gives a packet to a part of connection tracking of its own.
func zone(number field) term {
	return term{fmt.Sprintf("ct zone set %v", number), []expr.Any{
		number.load(reg1), &expr.Ct{Key: expr.CtKeyZONE, Register: reg1, SourceRegister: true},
	}}
}
