package middlebox

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// term is a part of a rule, in nft's own syntax and as the kernel's
// expressions. Every term is made by one of the functions below, so that what
// is printed is what is loaded.
type term struct {
	text  string
	exprs []expr.Any
}

// Registers of the kernel's virtual machine. A 128-bit register overlaps four
// of 32 bits; of a concatenation each part takes one of those.
const (
	reg1 = unix.NFT_REG_1
	reg2 = unix.NFT_REG_2
)

// part returns the n-th 32 bits of a 128-bit register.
func part(register uint32, n uint32) uint32 {
	return unix.NFT_REG32_00 + (register-unix.NFT_REG_1)*4 + n
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data}
}

func notEqual(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: data}
}

// ifname pads an interface's name to the kernel's size.
func ifname(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

func iif(name string) term {
	return term{fmt.Sprintf("iifname %q", name), []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, equal(ifname(name))}}
}

func iifNot(name string) term {
	return term{fmt.Sprintf("iifname != %q", name), []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, notEqual(ifname(name))}}
}

func oif(name string) term {
	return term{fmt.Sprintf("oifname %q", name), []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1}, equal(ifname(name))}}
}

func oifNot(name string) term {
	return term{fmt.Sprintf("oifname != %q", name), []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1}, notEqual(ifname(name))}}
}

var numbers = map[Protocol]byte{UDP: unix.IPPROTO_UDP, TCP: unix.IPPROTO_TCP}

func l4proto(p Protocol) term {
	return term{"meta l4proto " + string(p), []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal([]byte{numbers[p]})}}
}

func l4protoNot(p Protocol) term {
	return term{"meta l4proto != " + string(p), []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, notEqual([]byte{numbers[p]})}}
}

// ctMask matches a set of bits of one of connection tracking's words.
func ctMask(text string, key expr.CtKey, bits uint32) term {
	return term{text, []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		notEqual(make([]byte, 4)),
	}}
}

func established() term {
	return ctMask("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// notEstablished matches the first packets of a connection, until one has come
// back.
func notEstablished() term {
	return ctMask("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW)
}

// invalid matches what belongs to no connection and can't begin one.
func invalid() term {
	return ctMask("ct state invalid", expr.CtKeySTATE, expr.CtStateBitINVALID)
}

// valid matches what belongs to a connection or begins one.
func valid() term {
	return term{"ct state != invalid", []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg1},
		notEqual(binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID)),
	}}
}

// Flags of a TCP segment, RFC 9293 §3.1.
const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

// tcpFlags matches a segment that has one of these flags.
func tcpFlags(any byte) term {
	return flagged(any, "!=", 0, notEqual([]byte{0}))
}

// ongoing matches a segment that neither ends nor resets its connection.
func ongoing() term { return flagged(tcpFIN|tcpRST, "==", 0, equal([]byte{0})) }

// opening matches a segment that asks for a connection: a SYN, and no answer to
// one.
func opening() term {
	return flagged(tcpFIN|tcpSYN|tcpRST|tcpACK, "==", tcpSYN, equal([]byte{tcpSYN}))
}

// flagged compares some of the flags.
func flagged(mask byte, operator string, value byte, compare expr.Any) term {
	return term{fmt.Sprintf("tcp flags & (%s) %s %s", flagNames(mask), operator, flagNames(value)), []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		compare,
	}}
}

// flagNames writes flags as nft does, the lowest first.
func flagNames(flags byte) string {
	var names []string
	for _, f := range []struct {
		bit  byte
		name string
	}{{tcpFIN, "fin"}, {tcpSYN, "syn"}, {tcpRST, "rst"}, {tcpACK, "ack"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, " | ")
}

// The kernel's IPS_ASSURED, IPS_SRC_NAT and IPS_DST_NAT.
const (
	ipsAssured = 1 << 2
	ipsSrcNAT  = 1 << 4
	ipsDstNAT  = 1 << 5
)

// assured matches a TCP connection whose handshake both ends have finished.
func assured() term { return ctMask("ct status assured", expr.CtKeySTATUS, ipsAssured) }

func snatted() term { return ctMask("ct status snat", expr.CtKeySTATUS, ipsSrcNAT) }
func dnatted() term { return ctMask("ct status dnat", expr.CtKeySTATUS, ipsDstNAT) }

// Directions of a connection.
const (
	original = 0 // of its first packet
	reply    = 1
)

func direction(d byte) term {
	return term{"ct direction " + []string{"original", "reply"}[d], []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, equal([]byte{d})}}
}

// Fields of the IPv4 header (RFC 791) and of the ports that begin a UDP or TCP
// header (RFC 768, RFC 9293).
type field struct {
	text   string
	base   expr.PayloadBase
	offset uint32
	size   uint32
}

var (
	source      = field{"ip saddr", expr.PayloadBaseNetworkHeader, 12, 4}
	destination = field{"ip daddr", expr.PayloadBaseNetworkHeader, 16, 4}
	sourcePort  = field{"th sport", expr.PayloadBaseTransportHeader, 0, 2}
	destPort    = field{"th dport", expr.PayloadBaseTransportHeader, 2, 2}
	bothPorts   = field{"@th,0,32", expr.PayloadBaseTransportHeader, 0, 4}
)

func (f field) load(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: f.base, Offset: f.offset, Len: f.size}
}

func addressIs(f loader, a netip.Addr) term {
	return term{f.String() + " " + a.String(), []expr.Any{f.load(reg1), equal(a.AsSlice())}}
}

// addressAmong matches one of several addresses that follow each other.
func addressAmong(f loader, first, last netip.Addr) term {
	if first == last {
		return addressIs(f, first)
	}
	return term{fmt.Sprintf("%v %v-%v", f, first, last), []expr.Any{f.load(reg1),
		&expr.Range{Op: expr.CmpOpEq, Register: reg1, FromData: first.AsSlice(), ToData: last.AsSlice()}}}
}

func addressNotAmong(f loader, first, last netip.Addr) term {
	if first == last {
		return term{fmt.Sprintf("%v != %v", f, first), []expr.Any{f.load(reg1), notEqual(first.AsSlice())}}
	}
	return term{fmt.Sprintf("%v != %v-%v", f, first, last), []expr.Any{f.load(reg1),
		&expr.Range{Op: expr.CmpOpNeq, Register: reg1, FromData: first.AsSlice(), ToData: last.AsSlice()}}}
}

func portIs(f field, port uint16) term {
	return term{fmt.Sprintf("%s %d", f.text, port), []expr.Any{f.load(reg1), equal(binary.BigEndian.AppendUint16(nil, port))}}
}

func verdict(kind expr.VerdictKind, text string) term {
	return term{text, []expr.Any{&expr.Verdict{Kind: kind}}}
}

func accept() term { return verdict(expr.VerdictAccept, "accept") }

// back returns to the chain that jumped here.
func back() term { return verdict(expr.VerdictReturn, "return") }

// count adds to the named counter.
func count(name string) term {
	return term{fmt.Sprintf("counter name %q", name), []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}}
}

// record sends the whole packet to an NFLOG group with a prefix.
func record(prefix string, group uint16) term {
	return term{fmt.Sprintf("log prefix %q group %d", prefix, group), []expr.Any{&expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX,
		Group: group, Data: []byte(prefix),
	}}}
}

func drop() term { return verdict(expr.VerdictDrop, "drop") }

func rejectTCP() term {
	return term{"reject with tcp reset", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}}
}

// icmpPortUnreachable is a code of the type destination unreachable, RFC 792.
const icmpPortUnreachable = 3

func rejectICMP() term {
	return term{"reject with icmp type port-unreachable", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable}}}
}
