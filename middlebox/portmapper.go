package middlebox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// PortMapper is the place in a box's rules where a program, such as miniupnpd,
// puts its port mappings: the table PortMappingTable. What the program puts
// there takes effect at once. The PortMapper follows it, so that the box's own
// allocation of ports, and what sends from a mapped endpoint, keep to it: until
// then, some milliseconds after the program has made a mapping, the box may
// still give its port to somebody else, who loses it when the PortMapper has
// caught up. That can't be helped in the rules, since those that give a port out
// can't ask those of another table, and the program puts a port into a rule,
// not into a set; nor can ports be set aside, since hosts ask for any.
type PortMapper struct {
	loader   *Loader
	external netip.Addr
	conn     *nftables.Conn  // reads the program's rules
	events   *mdnetlink.Conn // says that rules have changed
	done     chan struct{}

	mu    sync.Mutex // held while it catches up
	known []PortMapping

	err error // why it follows no more; set before done is closed
}

// NewPortMapper makes an empty table for the box of a loader, in the place of
// one that is there, whose rules are about one external address.
func NewPortMapper(l *Loader, wan string, external netip.Addr) (*PortMapper, error) {
	m := &PortMapper{loader: l, external: external, done: make(chan struct{})}
	err := l.h.Do(func() (err error) {
		if m.conn, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
		if m.events, err = mdnetlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return errors.Join(err, m.conn.CloseLasting())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("port mappings: %w", err)
	}
	queueing.Lock()
	queuePortMapping(m.conn, wan, external)
	queueing.Unlock()
	err = errors.Join(m.conn.Flush(), l.MapPorts(nil))
	if err == nil {
		err = m.events.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port mappings: %w", err), m.events.Close(), m.conn.CloseLasting())
	}
	go m.follow()
	return m, nil
}

// Close takes the table and the mappings away. It returns what kept it from
// following the program, too.
func (m *PortMapper) Close() error {
	err := m.events.Close() // ends follow
	<-m.done
	m.conn.DelTable(portMappingTable())
	err = errors.Join(m.err, err, m.conn.Flush(), m.loader.MapPorts(nil), m.conn.CloseLasting())
	if err != nil {
		return fmt.Errorf("port mappings: %w", err)
	}
	return nil
}

// follow hands on what the program has put into its table, until events ends.
func (m *PortMapper) follow() {
	defer close(m.done)
	for {
		if _, err := m.events.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) { // lost events say the same as others
			if !closed(err) {
				m.err = err
			}
			return
		}
		if err := m.CatchUp(); err != nil {
			m.err = err
			return
		}
	}
}

// CatchUp hands on what the program has put into its table until now. Whoever
// has an answer of the program, and calls it, has the mapping for certain.
func (m *PortMapper) CatchUp() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, err := m.read()
	if err != nil || slices.Equal(now, m.known) {
		return err
	}
	m.known = now
	return m.loader.MapPorts(now)
}

// closed says whether a socket's error is that it was closed here.
func closed(err error) bool {
	var op *mdnetlink.OpError
	return errors.Is(err, unix.EBADF) || errors.As(err, &op) && op.Err != nil && op.Err.Error() == "use of closed file"
}

// read returns the mappings that are in the table now.
func (m *PortMapper) read() ([]PortMapping, error) {
	t := portMappingTable()
	rules, err := m.conn.GetRules(t, &nftables.Chain{Name: PortMappingPrerouting, Table: t})
	if err != nil {
		return nil, fmt.Errorf("read port mappings: %w", err)
	}
	var all []PortMapping
	for _, r := range rules {
		if p, ok := m.parse(r.Exprs); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// parse reads a rule that compares protocol and port and sends to an endpoint
// inside. ok is false if it is no such rule.
func (m *PortMapper) parse(exprs []expr.Any) (p PortMapping, ok bool) {
	var loaded field
	var port uint16
	registers := map[uint32][]byte{}
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload:
			loaded = field{base: e.Base, offset: e.Offset, size: e.Len}
		case *expr.Meta:
			loaded = field{}
			if e.Key == expr.MetaKeyL4PROTO {
				loaded = ipProtocol
			}
		case *expr.Cmp:
			switch {
			case loaded == ipProtocol && len(e.Data) == 1:
				for name, n := range numbers {
					if n == e.Data[0] {
						p.Protocol = name
					}
				}
			case loaded == field{base: destPort.base, offset: destPort.offset, size: destPort.size} && len(e.Data) >= 2:
				port = binary.BigEndian.Uint16(e.Data)
			}
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.NAT:
			address, isAddress := netip.AddrFromSlice(registers[e.RegAddrMin])
			if to := registers[e.RegProtoMin]; e.Type == expr.NATTypeDestNAT && isAddress && len(to) >= 2 {
				p.Internal = netip.AddrPortFrom(address, binary.BigEndian.Uint16(to))
			}
		}
	}
	p.External = netip.AddrPortFrom(m.external, port)
	return p, port != 0 && p.Protocol != "" && p.Internal.IsValid()
}

// ipProtocol is the field of the IPv4 header, RFC 791.
var ipProtocol = field{base: expr.PayloadBaseNetworkHeader, offset: 9, size: 1}

// MapPorts has the box keep to the port mappings given, and to no others, until
// it is told of others: rules that are loaded meanwhile keep to them too. Whoever
// has one of the external endpoints otherwise loses it with all its flows.
func (l *Loader) MapPorts(all []PortMapping) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = slices.Clone(all)
	if !l.mapsPorts {
		return nil
	}
	t := table()
	queueing.Lock()
	err := l.queuePorts(t, true)
	queueing.Unlock()
	if err == nil {
		err = l.conn.Flush()
	}
	if err == nil {
		err = l.evict(t)
	}
	if err != nil {
		return fmt.Errorf("map ports: %w", err)
	}
	return nil
}

// queuePorts queues the messages that fill the sets of port mappings.
func (l *Loader) queuePorts(t *nftables.Table, flush bool) error {
	for _, p := range transports {
		endpoint, err := nftables.ConcatSetType(endpoints(2)...)
		if err != nil {
			return err
		}
		external := &nftables.Set{Table: t, Name: mappedSet(p), KeyType: endpoint, Concatenation: true}
		asked := &nftables.Set{Table: t, Name: askedMap(p), KeyType: endpoint, DataType: endpoint, IsMap: true, Concatenation: true}
		if flush {
			l.conn.FlushSet(external)
			l.conn.FlushSet(asked)
		}
		inside := map[netip.AddrPort]bool{}
		for _, m := range l.ports {
			if m.Protocol != p {
				continue
			}
			if err := l.conn.SetAddElements(external, []nftables.SetElement{{Key: endpointBytes(m.External)}}); err != nil {
				return err
			}
			if inside[m.Internal] {
				continue // it sends from the first that it has asked for
			}
			inside[m.Internal] = true
			if err := l.conn.SetAddElements(asked, []nftables.SetElement{{Key: endpointBytes(m.Internal), Val: endpointBytes(m.External)}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// endpointBytes is an endpoint as a concatenation has it: each part takes four
// bytes.
func endpointBytes(e netip.AddrPort) []byte {
	return append(binary.BigEndian.AppendUint16(e.Addr().AsSlice(), e.Port()), 0, 0)
}

// evict takes mapped external endpoints from those who have them otherwise.
func (l *Loader) evict(t *nftables.Table) error {
	owner := map[Protocol]map[netip.AddrPort]netip.AddrPort{}
	for _, p := range transports {
		owner[p] = map[netip.AddrPort]netip.AddrPort{}
		for _, m := range l.ports {
			if m.Protocol == p {
				owner[p][m.External] = m.Internal
			}
		}
		if len(owner[p]) == 0 {
			continue
		}
		internal, err := l.conn.GetSetByName(t, internalMap(p))
		if err != nil {
			return err
		}
		external, err := l.conn.GetSetByName(t, externalMap(p))
		if err != nil {
			return err
		}
		elements, err := l.conn.GetSetElements(internal)
		if err != nil {
			return err
		}
		for _, e := range elements {
			if to, ok := owner[p][endpointFrom(e.Key)]; ok && endpointFrom(e.Val) != to {
				err = errors.Join(
					l.conn.SetDeleteElements(internal, []nftables.SetElement{{Key: e.Key}}),
					l.conn.SetDeleteElements(external, []nftables.SetElement{{Key: e.Val}}), l.conn.Flush())
				if err != nil && !errors.Is(err, unix.ENOENT) { // its time may be over
					return err
				}
			}
		}
	}
	if len(owner[UDP])+len(owner[TCP]) == 0 {
		return nil
	}
	flows, err := l.tracking()
	if err != nil {
		return err
	}
	_, err = flows.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, others(owner))
	return err
}

func endpointFrom(data []byte) netip.AddrPort {
	if len(data) < 6 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(data)), binary.BigEndian.Uint16(data[4:]))
}

// others matches flows from inside at a mapped external endpoint that are not
// of the endpoint that it belongs to.
type others map[Protocol]map[netip.AddrPort]netip.AddrPort

func (o others) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for p, owner := range o {
		if flow.Forward.Protocol != numbers[p] {
			continue
		}
		inside, a := netip.AddrFromSlice(flow.Forward.SrcIP.To4())
		outside, b := netip.AddrFromSlice(flow.Reverse.DstIP.To4())
		to, ok := owner[netip.AddrPortFrom(outside, flow.Reverse.DstPort)]
		return a && b && ok && to != netip.AddrPortFrom(inside, flow.Forward.SrcPort)
	}
	return false
}

var _ netlink.CustomConntrackFilter = others(nil)
