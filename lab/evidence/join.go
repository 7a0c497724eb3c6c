package evidence

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// joiner gathers packets by the tuple that each place saw and joins the places
// into flows.
type joiner struct {
	world  *World
	tables map[string]translations
	chains map[string][]string
	owners map[netip.Addr][]string // hosts, and boxes by their outer addresses

	hosts     map[view][]event // at hosts' own interfaces; outward is sent
	boxes     map[view][]event // at boxes' inner interfaces
	fragments map[fragment]Packet
	kept      int

	flows    map[flowKey][]*instance
	places   map[view][]placed
	bindings map[outer][]Binding
	mapped   map[flowKey]map[string]bool // the boxes with a port mapping for the flow
}

// view is a flow as one place sees it: the tuple of a packet outward.
type view struct {
	place     string // host or box
	transport string
	tuple     Tuple
}

// event is a packet at a place. It is small, since there are many.
type event struct {
	at      int64 // ns since 1970
	seq     uint32
	payload uint16
	flags   uint8
	outward bool
}

// fragment identifies the fragments of a datagram at a tap, RFC 791.
type fragment struct {
	tap      string
	src, dst netip.Addr
	protocol byte
	id       uint16
}

// maxFragments bounds the datagrams whose later fragments are awaited.
const maxFragments = 1024

// innerInterface is the name of a box's interface towards its LAN.
const innerInterface = "lan"

func newJoiner(w *World) *joiner {
	j := &joiner{
		world:     w,
		tables:    map[string]translations{},
		chains:    map[string][]string{},
		owners:    map[netip.Addr][]string{},
		hosts:     map[view][]event{},
		boxes:     map[view][]event{},
		fragments: map[fragment]Packet{},
		flows:     map[flowKey][]*instance{},
		places:    map[view][]placed{},
		bindings:  map[outer][]Binding{},
		mapped:    map[flowKey]map[string]bool{},
	}
	for _, h := range w.Hosts {
		for _, a := range h.Addresses {
			j.owners[a] = append(j.owners[a], h.Name)
		}
	}
	for _, b := range w.Boxes {
		for _, a := range b.WAN {
			j.owners[a] = append(j.owners[a], b.Name)
		}
	}
	return j
}

// dump takes a router's table.
func (j *joiner) dump(d Dump) {
	t := j.tables[d.Router]
	if t == nil {
		t = translations{}
		j.tables[d.Router] = t
	}
	for _, e := range d.Flows {
		t.add(e)
	}
}

// packet takes a packet of the capture: those of hosts' interfaces and of
// boxes' inner ones.
func (j *joiner) packet(c CapturedPacket) {
	place, iface, _ := strings.Cut(c.Tap, "/")
	host := j.world.Host(place)
	if host == nil && (iface != innerInterface || j.world.Box(place) == nil) {
		return
	}
	p, ok := ParseFrame(c.Data)
	if !ok {
		if p, ok = j.later(c); !ok {
			return
		}
	} else if p.More {
		j.first(c, p)
	}
	v := view{place: place, transport: p.Transport, tuple: p.Tuple}
	e := event{at: c.Time.UnixNano(), seq: p.Seq, payload: uint16(p.Payload), flags: p.Flags, outward: true}
	into := j.hosts
	if host != nil {
		switch {
		case slices.Contains(host.Addresses, p.Tuple.Src.Addr()):
		case slices.Contains(host.Addresses, p.Tuple.Dst.Addr()):
			v.tuple, e.outward = p.Tuple.Reverse(), false
		default:
			return
		}
	} else {
		into = j.boxes
		if !j.inside(place, p.Tuple.Src.Addr()) {
			v.tuple, e.outward = p.Tuple.Reverse(), false
		}
	}
	into[v] = append(into[v], e)
	j.kept++
}

// inside says whether a packet from the address comes from a box's inner side.
func (j *joiner) inside(box string, address netip.Addr) bool {
	if j.holds(box, address) {
		return true
	}
	b := j.world.Box(box)
	return b.LAN.IsValid() && b.LAN.Contains(address)
}

// first remembers the first fragment of a datagram.
func (j *joiner) first(c CapturedPacket, p Packet) {
	if len(j.fragments) == maxFragments {
		clear(j.fragments)
	}
	j.fragments[fragment{c.Tap, p.Tuple.Src.Addr(), p.Tuple.Dst.Addr(), protocolOf(p.Transport), p.ID}] = p
}

// later gives a later fragment the ports of the first, if that came before it
// at the same tap.
func (j *joiner) later(c CapturedPacket) (Packet, bool) {
	if len(c.Data) < etherHeader || binary.BigEndian.Uint16(c.Data[12:]) != etherIPv4 {
		return Packet{}, false
	}
	h, ok := parseIPv4(c.Data[etherHeader:])
	if !ok || h.offset == 0 {
		return Packet{}, false
	}
	p, ok := j.fragments[fragment{c.Tap, h.src, h.dst, h.protocol, h.id}]
	p.Seq += uint32(h.offset)
	p.Payload = h.length - h.header
	return p, ok
}

func protocolOf(transport string) byte {
	if transport == TCP {
		return protocolTCP
	}
	return protocolUDP
}

func moment(ns int64) time.Time { return time.Unix(0, ns) }
