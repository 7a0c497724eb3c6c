package middlebox

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// portChoice puts the port that a packet shall get into a register. nft(8) has
// no words for a number that is chosen once and used twice, so these are ours.
type portChoice interface {
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

func (n portNumber) choose(register uint32) []expr.Any {
	kind := uint32(unix.NFT_NG_RANDOM)
	if n.next {
		kind = unix.NFT_NG_INCREMENTAL
	}
	exprs := []expr.Any{
		&expr.Numgen{Register: register, Type: kind, Modulus: n.count, Offset: n.from},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 2, Size: 2},
	}
	if n.parity == anyParity {
		return exprs
	}
	return append(exprs, &expr.Bitwise{
		SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0xff, 0xfe}, Xor: []byte{0, byte(n.parity - even)},
	})
}

func (n portNumber) String() string {
	kind := "random"
	if n.next {
		kind = "inc"
	}
	text := fmt.Sprintf("hton(numgen %s mod %d offset %d)", kind, n.count, n.from)
	switch n.parity {
	case even:
		text += " & 0xfffe"
	case odd:
		text += " | 1"
	}
	return text
}

// snatToFree translates to an address and a port, unless that external
// endpoint is somebody's already. A plain box keeps the mapping here.
func (g *generator) snatToFree(p Protocol, a netip.Addr, port portChoice) term {
	text := fmt.Sprintf("let port = %v; ", port)
	exprs := append(port.choose(part(reg1, 1)), &expr.Immediate{Register: part(reg1, 0), Data: a.AsSlice()})
	for _, name := range g.taken(p) {
		text += fmt.Sprintf("%v . port != @%s ", a, name)
		exprs = append(exprs, &expr.Lookup{SourceRegister: reg1, SetName: name, Invert: true})
	}
	if g.plain() {
		key, life := g.key(source, sourcePort), g.firstLife(p)
		exprs = append(append(exprs, loadAll(reg2, key)...), updateBoth(p, reg1, reg2, life)...)
		text += updateText(p, fmt.Sprintf("%v . port", a), names(key), life) + " "
	}
	exprs = append(exprs, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: part(reg1, 0), RegProtoMin: part(reg1, 1)})
	return term{text + fmt.Sprintf("snat to %v : port", a), exprs}
}

// parity matches a port that is even (0) or odd (1).
func parity(f field, bit byte) term {
	return term{fmt.Sprintf("%v & 1 == %d", f, bit), []expr.Any{
		f.load(reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 2, Mask: []byte{0, 1}, Xor: []byte{0, 0}},
		equal([]byte{0, bit}),
	}}
}

// hashIs matches a field whose hash modulo n is i.
func hashIs(f field, n, i uint32) term {
	return term{fmt.Sprintf("jhash %v mod %d seed 0x1 == %d", f, n, i), []expr.Any{
		f.load(reg2),
		&expr.Hash{SourceRegister: reg2, DestRegister: reg1, Length: f.size, Modulus: n, Seed: 1, Type: expr.HashTypeJenkins},
		equal(binary.NativeEndian.AppendUint32(nil, i)),
	}}
}

// oneIn matches by chance, one time in n.
func oneIn(n uint32) term {
	return term{fmt.Sprintf("numgen random mod %d == 0", n), []expr.Any{
		&expr.Numgen{Register: reg1, Type: unix.NFT_NG_RANDOM, Modulus: n},
		equal(make([]byte, 4)),
	}}
}

func jump(name string) term {
	return term{"jump " + name, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: name}}}
}

func goTo(name string) term {
	return term{"goto " + name, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: name}}}
}
