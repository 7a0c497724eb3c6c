package memory

import (
	"net/netip"
	"time"

	"gauntlet/nodes/network"
)

// Dependence is on what of a destination a NAT's mapping or filtering depends,
// in the order of RFC 4787 §4.1 and §5.
type Dependence int

// The three dependences.
const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressPortDependent
)

// project blanks what a dependence doesn't look at.
func (d Dependence) project(remote netip.AddrPort) netip.AddrPort {
	switch d {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	}
	return remote
}

// NAT is a box that translates the UDP of the hosts behind it. TCP gets out of
// it untranslated, and none in. What is sent to its external address from behind
// it is translated too (hairpin, RFC 4787 §6).
type NAT struct {
	External   netip.Addr
	Mapping    Dependence
	Filtering  Dependence
	Sequential bool          // ports are given out one after the other; else scattered
	Timeout    time.Duration // of a binding without outbound packets; zero: never

	next   uint16
	byKey  map[mappingKey]uint16
	byPort map[uint16]*mapping
}

type mappingKey struct{ inside, remote netip.AddrPort }

// mapping is one external port, and who may send to it.
type mapping struct {
	key   mappingKey
	used  time.Time
	peers map[netip.AddrPort]time.Time // as the filtering looks at them
}

// Behind adds a host behind a NAT.
func (n *Internet) Behind(nat *NAT, name string, addr netip.Addr) network.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	if nat.byKey == nil {
		nat.byKey, nat.byPort, nat.next = map[mappingKey]uint16{}, map[uint16]*mapping{}, 1024
	}
	n.nats[nat.External] = nat
	n.behind[addr] = nat
	return &host{net: n, name: name, addrs: []netip.Addr{addr}}
}

// Flush has a NAT forget all its bindings.
func (n *Internet) Flush(nat *NAT) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(nat.byKey)
	clear(nat.byPort)
}

// leave is what the boxes on the sender's side make of a datagram: its source
// from then on. Called with the lock held.
func (n *Internet) leave(from, to netip.AddrPort) netip.AddrPort {
	nat := n.behind[from.Addr()]
	if nat == nil || n.behind[to.Addr()] == nat {
		return from
	}
	return netip.AddrPortFrom(nat.External, nat.out(from, to, time.Now()))
}

// enter is what the boxes on the receiver's side make of a datagram that was
// sent from inside, and left its own box as from: its destination from then on,
// or ok is false. Called with the lock held.
func (n *Internet) enter(inside, from, to netip.AddrPort) (netip.AddrPort, bool) {
	nat := n.nats[to.Addr()]
	if nat == nil {
		at := n.behind[to.Addr()]
		return to, at == nil || at == n.behind[inside.Addr()]
	}
	return nat.in(from, to.Port(), time.Now())
}

func (t *NAT) expired(at, now time.Time) bool { return t.Timeout > 0 && now.Sub(at) > t.Timeout }

// out maps an outbound datagram and returns its external port.
func (t *NAT) out(from, to netip.AddrPort, now time.Time) uint16 {
	key := mappingKey{from, t.Mapping.project(to)}
	port, ok := t.byKey[key]
	if ok && t.expired(t.byPort[port].used, now) {
		delete(t.byPort, port)
		ok = false
	}
	if !ok {
		for {
			t.next++
			port = t.next
			if !t.Sequential {
				port = port*40503 | 1024 // an odd factor scatters what is counted
			}
			if t.byPort[port] == nil && port >= 1024 {
				break
			}
		}
		t.byKey[key] = port
		t.byPort[port] = &mapping{key: key, peers: map[netip.AddrPort]time.Time{}}
	}
	m := t.byPort[port]
	m.used = now
	m.peers[t.Filtering.project(to)] = now
	return port
}

// in finds who an inbound datagram is for, if it may pass.
func (t *NAT) in(from netip.AddrPort, port uint16, now time.Time) (netip.AddrPort, bool) {
	m := t.byPort[port]
	if m == nil || t.expired(m.used, now) {
		return netip.AddrPort{}, false
	}
	last, ok := m.peers[t.Filtering.project(from)]
	return m.key.inside, ok && !t.expired(last, now)
}
