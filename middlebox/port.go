package middlebox

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// choice puts the port, or the address, that a packet shall get into a register.
// nft(8) has no words for a number that is chosen once and used twice, so these
// are ours.
type choice interface {
	choose(register uint32) []expr.Any
	String() string
}

// samePort is the internal port.
type samePort struct{}

func (samePort) choose(register uint32) []expr.Any { return []expr.Any{sourcePort.load(register)} }
func (samePort) String() string                    { return "th sport" }

// Parities of a port.
const (
	anyParity = iota
	even
	odd
)

// portNumber is one of count ports that begin at from, by chance or each after
// the one before, made even or odd where asked. Both from and count are then
// even, so that it stays in the range.
type portNumber struct {
	from, count uint32
	next        bool
	parity      int
}

// draw puts the number into a register as the processor has it.
func (n portNumber) draw(register uint32) []expr.Any {
	kind := uint32(unix.NFT_NG_RANDOM)
	if n.next {
		kind = unix.NFT_NG_INCREMENTAL
	}
	return []expr.Any{&expr.Numgen{Register: register, Type: kind, Modulus: n.count, Offset: n.from}}
}

func (n portNumber) drawText() string {
	kind := "random"
	if n.next {
		kind = "inc"
	}
	return fmt.Sprintf("numgen %s mod %d offset %d", kind, n.count, n.from)
}

func (n portNumber) choose(register uint32) []expr.Any {
	exprs := append(n.draw(register), hton(register, 2))
	if n.parity == anyParity {
		return exprs
	}
	return append(exprs, &expr.Bitwise{
		SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0xff, 0xfe}, Xor: []byte{0, byte(n.parity - even)},
	})
}

func (n portNumber) String() string {
	text := fmt.Sprintf("hton(%s)", n.drawText())
	switch n.parity {
	case even:
		text += " & 0xfffe"
	case odd:
		text += " | 1"
	}
	return text
}

// fixedAddress is one address.
type fixedAddress netip.Addr

func (a fixedAddress) choose(register uint32) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: register, Data: netip.Addr(a).AsSlice()}}
}
func (a fixedAddress) String() string { return netip.Addr(a).String() }

// drawnAddress is one of count addresses that begin at first: always the same
// for an internal one, or any by chance.
type drawnAddress struct {
	first  netip.Addr
	count  uint32
	paired bool
}

// draw puts it into a register as the processor has numbers.
func (a drawnAddress) draw(register uint32) []expr.Any {
	if !a.paired {
		return []expr.Any{&expr.Numgen{Register: register, Type: unix.NFT_NG_RANDOM, Modulus: a.count, Offset: number(a.first)}}
	}
	return []expr.Any{source.load(reg2), &expr.Hash{
		SourceRegister: reg2, DestRegister: register, Length: source.size, Modulus: a.count, Seed: 1, Offset: number(a.first), Type: expr.HashTypeJenkins,
	}}
}

func (a drawnAddress) drawText() string {
	if !a.paired {
		return fmt.Sprintf("numgen random mod %d offset %d", a.count, number(a.first))
	}
	return fmt.Sprintf("jhash %v mod %d seed 0x1 offset %d", source, a.count, number(a.first))
}

func (a drawnAddress) choose(register uint32) []expr.Any {
	return append(a.draw(register), hton(register, 4))
}
func (a drawnAddress) String() string { return fmt.Sprintf("hton(%s)", a.drawText()) }

// markedPort and markedAddress are what the packet's mark says.
type (
	markedPort    struct{}
	markedAddress struct{}
)

func (markedPort) choose(register uint32) []expr.Any    { return fromPacketMark(register, 2) }
func (markedPort) String() string                       { return "hton(meta mark)" }
func (markedAddress) choose(register uint32) []expr.Any { return fromPacketMark(register, 4) }
func (markedAddress) String() string                    { return "hton(meta mark)" }

func fromPacketMark(register, bytes uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, hton(register, bytes)}
}

// setPacketMark makes a number the packet's mark, which later rules read. No
// mark leaves the namespace.
func setPacketMark(n interface {
	draw(register uint32) []expr.Any
	drawText() string
}) term {
	return term{"meta mark set " + n.drawText(), append(n.draw(reg1), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1})}
}

// packetMarkIs matches a packet with that mark.
func packetMarkIs(n uint32) term {
	return term{fmt.Sprintf("meta mark %d", n), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1}, equal(binary.NativeEndian.AppendUint32(nil, n)),
	}}
}

// hton puts a number in a register into the order of the network.
func hton(register, bytes uint32) expr.Any {
	return &expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: bytes, Size: bytes}
}

// number is an address as one, and address the other way round.
func number(a netip.Addr) uint32 {
	bytes := a.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// snatToFree translates to an address and a port, unless that external
// endpoint is somebody's already. A plain box keeps the mapping here.
func (g *generator) snatToFree(p Protocol, a, port choice) term {
	text, to := fmt.Sprintf("let port = %v; ", port), a.String()
	if _, fixed := a.(fixedAddress); !fixed {
		text, to = fmt.Sprintf("let address = %v; ", a)+text, "address"
	}
	exprs := append(port.choose(part(reg1, 1)), a.choose(part(reg1, 0))...)
	for _, name := range g.taken(p) {
		text += fmt.Sprintf("%s . port != @%s ", to, name)
		exprs = append(exprs, &expr.Lookup{SourceRegister: reg1, SetName: name, Invert: true})
	}
	if g.plain() {
		key, life := g.key(source, sourcePort), g.firstLife(p)
		exprs = append(append(exprs, loadAll(reg2, key)...), updateBoth(p, reg1, reg2, life)...)
		text += updateText(p, to+" . port", names(key), life) + " "
	}
	return term{text + fmt.Sprintf("snat to %s : port random", to), append(exprs, snatToOne(reg1))}
}

// parity matches a port that is even (0) or odd (1).
func parity(f field, bit byte) term {
	return term{fmt.Sprintf("%v & 1 == %d", f, bit), []expr.Any{
		f.load(reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 2, Mask: []byte{0, 1}, Xor: []byte{0, 0}},
		equal([]byte{0, bit}),
	}}
}

func jump(name string) term {
	return term{"jump " + name, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: name}}}
}

func goTo(name string) term {
	return term{"goto " + name, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: name}}}
}

func goBack() term {
	return term{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
}
