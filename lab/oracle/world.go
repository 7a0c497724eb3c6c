package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	"gauntlet/middlebox"
	"gauntlet/middlebox/model"
)

// Ports of the overlay's nodes in the reasoning: only whether they are web
// ports matters (allow lists).
const (
	overlayPort = 33033
	clientPort  = 40000
)

// supernodePorts are the TCP ports that a supernode listens on (papers.md
// section 2.7).
var supernodePorts = []uint16{overlayPort, 80, 443}

// Addresses of what is on the internet in every world. The supernodes, from
// firstSN on, have different addresses, and other ones than the ends: else a
// filter that looks at addresses would seem to have none.
var (
	loginAddr = netip.MustParseAddr("198.18.0.10")
	firstSN   = netip.MustParseAddr("198.18.0.11")
)

// fewest is how many supernodes there are at least in a world: an end looks at
// what its box does for another destination.
const fewest = 2

// world is a small internet in memory with the two ends of a pair.
type world struct {
	internet   *network
	boxes      []*box
	hosts      [2]*host // caller, callee
	supernodes int      // the hosts of the internet after the login server
	err        error    // the first of a model
}

// network is a LAN, or the internet: hosts and boxes that reach each other
// without a box between.
type network struct {
	behind *box // nil for the internet
	hosts  []*host
	boxes  []*box
	next   netip.Addr // the next address to give out
}

type host struct {
	name string
	addr netip.Addr
	at   *network
}

// box is a box with a model, its two sides, and what is worth telling of its
// past.
type box struct {
	name      string
	behaviour middlebox.Behaviour
	model     *model.Box
	wan       []netip.Addr
	prefix    netip.Prefix
	outer     *network
	inner     *network

	random  uint32
	last    uint16                    // port given last
	rotates bool                      // each time another address than the one given last
	turn    int                       // the index of the address to give next
	paired  map[netip.Addr]netip.Addr // by internal address, the one that it was given
	owner   map[netip.AddrPort]netip.AddrPort
	sent    map[netip.AddrPort][]netip.AddrPort // to whom UDP was sent from each endpoint, internal and external
}

// newWorld builds it. The names of hosts that boxes deny are known as far as
// they are in the world.
func newWorld(p Pair, o Options) (*world, error) {
	w := &world{internet: &network{next: netip.MustParseAddr("198.18.1.1")}}
	w.internet.hosts = []*host{{o.Login, loginAddr, w.internet}}
	denied := map[string][]netip.Addr{o.Login: {loginAddr}}
	sn := firstSN
	for _, name := range p.looked(o.Supernodes) {
		w.internet.hosts = append(w.internet.hosts, &host{name, sn, w.internet})
		denied[name] = []netip.Addr{sn}
		w.supernodes++
		sn = sn.Next()
	}
	for i, e := range []End{p.Caller, p.Callee} {
		at := w.internet
		for _, b := range slices.Backward(e.Boxes) {
			inside := w.find(b.Name)
			if inside == nil {
				inside = w.add(b, at)
			}
			at = inside.inner
		}
		w.hosts[i] = &host{name: e.Name, addr: at.take(), at: at}
		at.hosts = append(at.hosts, w.hosts[i])
	}
	for _, h := range w.hosts {
		denied[h.name] = append(denied[h.name], h.addr)
	}
	for _, b := range w.boxes {
		unlimited := b.behaviour
		unlimited.UDPRate = 0 // it is enough for a call (beyond), and no time passes here
		m, err := model.New(model.Config{Behaviour: unlimited, WAN: b.wan, LAN: b.prefix, Routed: b.routed(), Denied: denied})
		if err != nil {
			return nil, fmt.Errorf("box %s: %w", b.name, err)
		}
		b.model, b.rotates = m, o.rotate
		b.forget()
	}
	return w, nil
}

// looked are the supernodes that a world has: all that one of the boxes denies,
// and of the others, which are all the same, as many as are looked at together.
// Those come first.
func (p Pair) looked(names []string) []string {
	var free, denied []string
	for _, name := range names {
		deny := func(d middlebox.Deny) bool { return d.Host == name }
		box := func(b Box) bool { return slices.ContainsFunc(b.Behaviour.Deny, deny) }
		if slices.ContainsFunc(p.Caller.Boxes, box) || slices.ContainsFunc(p.Callee.Boxes, box) {
			denied = append(denied, name)
		} else if len(free) < fewest {
			free = append(free, name)
		}
	}
	for n := 0; len(free)+len(denied) < fewest; n++ {
		free = append(free, []string{"a supernode", "another supernode"}[n])
	}
	return append(free, denied...)
}

func (w *world) find(name string) *box {
	for _, b := range w.boxes {
		if b.name == name {
			return b
		}
	}
	return nil
}

// add puts a box into a network. LANs of boxes that translate, or are behind
// one that does, are private.
func (w *world) add(described Box, at *network) *box {
	n := byte(len(w.boxes) + 1)
	b := &box{name: described.Name, behaviour: described.Behaviour, outer: at}
	private := b.behaviour.Translates()
	for o := at.behind; o != nil; o = o.outer.behind {
		private = private || o.behaviour.Translates()
	}
	lan := netip.AddrFrom4([4]byte{198, 19, n, 0})
	if private {
		lan = netip.AddrFrom4([4]byte{10, 0, n, 0})
	}
	for range max(1, described.Addresses) {
		b.wan = append(b.wan, at.take())
	}
	b.prefix = netip.PrefixFrom(lan, 24)
	b.inner = &network{behind: b, next: lan.Next().Next()}
	at.boxes = append(at.boxes, b)
	w.boxes = append(w.boxes, b)
	return b
}

// routed are the LANs of the firewalls behind a box.
func (b *box) routed() (networks []netip.Prefix) {
	for _, inner := range b.inner.boxes {
		if !inner.behaviour.Translates() {
			networks = append(append(networks, inner.prefix), inner.routed()...)
		}
	}
	return networks
}

func (n *network) take() netip.Addr {
	a := n.next
	n.next = a.Next()
	return a
}

// forget empties a box: all bindings have expired.
func (b *box) forget() {
	b.model.Reset()
	b.paired = map[netip.Addr]netip.Addr{}
	b.owner = map[netip.AddrPort]netip.AddrPort{}
	b.sent = map[netip.AddrPort][]netip.AddrPort{}
}

// has says whether a packet to an address must go to this box, seen from
// outside.
func (b *box) has(a netip.Addr) bool {
	if slices.Contains(b.wan, a) {
		return true
	}
	if b.behaviour.Translates() {
		return false
	}
	return b.prefix.Contains(a) || slices.ContainsFunc(b.inner.boxes, func(i *box) bool { return i.has(a) })
}

// arrival is how a packet ended.
type arrival struct {
	at     *host // nil if it reached nobody
	packet model.Packet
	box    *box   // that stopped it, or took it for itself
	rule   string // by which it did; "" if it took it for itself
	inward bool   // it came from outside the box that stopped it
}

// carry takes a packet from a network to its end.
func (w *world) carry(p model.Packet, at *network) arrival {
	const most = 32 // boxes; more is a loop
	for range most {
		for _, h := range at.hosts {
			if h.addr == p.To.Addr() {
				return arrival{at: h, packet: p}
			}
		}
		b, from := at.behind, model.Inside
		if i := slices.IndexFunc(at.boxes, func(b *box) bool { return b.has(p.To.Addr()) }); i >= 0 {
			b, from = at.boxes[i], model.Outside
		}
		if b == nil {
			return arrival{packet: p} // an address that nobody has
		}
		fate := w.handle(b, from, p)
		switch {
		case fate.Dropped != "" || fate.Local:
			return arrival{packet: p, box: b, rule: fate.Dropped, inward: from == model.Outside}
		case fate.To == model.Inside:
			at = b.inner
		default:
			at = b.outer
		}
		p = fate.Packet
	}
	return arrival{packet: p}
}

// handle has the model of a box decide, and keeps what is worth telling.
func (w *world) handle(b *box, from model.Side, p model.Packet) model.Fate {
	fate, err := b.model.Handle(from, p, 0, b.choose)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("box %s: %v: %w", b.name, p, err)
	}
	if p.Protocol == middlebox.UDP && from == model.Inside && fate.Dropped == "" && fate.To == model.Outside {
		b.owner[fate.Packet.From] = p.From
		for _, own := range []netip.AddrPort{p.From, fate.Packet.From} {
			if !slices.Contains(b.sent[own], p.To) {
				b.sent[own] = append(b.sent[own], p.To)
			}
		}
	}
	return fate
}

// choose chooses an external endpoint as the behaviour allows: of the box's
// addresses the first that has a port left, from the one on whose turn it is. A
// paired pool holds on to the one that a host has.
func (b *box) choose(c model.Choice) (netip.AddrPort, error) {
	first := b.turn
	if paired, ok := b.paired[c.Inside.Addr()]; ok && b.behaviour.Pool != middlebox.ArbitraryPool {
		first = slices.Index(b.wan, paired)
	}
	for i := range b.wan {
		e, ok := b.port(c, b.wan[(first+i)%len(b.wan)])
		if !ok {
			continue
		}
		if _, known := b.paired[c.Inside.Addr()]; b.rotates && (!known || b.behaviour.Pool == middlebox.ArbitraryPool) {
			b.turn = (slices.Index(b.wan, e.Addr()) + 1) % len(b.wan)
		}
		b.paired[c.Inside.Addr()], b.last = e.Addr(), e.Port()
		return e, nil
	}
	return netip.AddrPort{}, model.ErrNoPort
}

// port chooses a port of an address: the internal port if that may be, else the one
// after the last, else one far from all that were given, so that nobody guesses it
// by accident.
func (b *box) port(c model.Choice, a netip.Addr) (netip.AddrPort, bool) {
	random := b.behaviour.Ports == middlebox.RandomPorts || b.behaviour.Ports == middlebox.ParityPorts ||
		b.behaviour.Ports == "" && b.behaviour.Mapping != middlebox.MapEndpointIndependent
	if !random {
		for _, port := range []uint16{c.Inside.Port(), b.last + 1} {
			if e := netip.AddrPortFrom(a, port); c.Allows(e) == nil {
				return e, true
			}
		}
	}
	const step, tries = 7919, 1 << 16 // a prime: every port comes once
	for range tries {
		b.random = (b.random + step) % tries
		if e := netip.AddrPortFrom(a, uint16(b.random)); c.Allows(e) == nil {
			return e, true
		}
	}
	return netip.AddrPort{}, false
}

// connects says whether a host can open a TCP connection to an address and
// port of another: the first segment and its answer arrive (RFC 9293 section
// 3.5). end tells how it ended.
func (w *world) connects(from, to *host, port uint16) (ok bool, end arrival) {
	p := model.Packet{Protocol: middlebox.TCP, From: netip.AddrPortFrom(from.addr, clientPort), To: netip.AddrPortFrom(to.addr, port), Flags: model.SYN}
	end = w.carry(p, from.at)
	if end.at != to {
		return false, end
	}
	end = w.carry(model.Packet{Protocol: middlebox.TCP, From: end.packet.To, To: end.packet.From, Flags: model.SYN | model.ACK}, to.at)
	return end.at == from && w.err == nil, end
}

// supernode returns one of them.
func (w *world) supernode(n int) *host { return w.internet.hosts[1+n] }
