package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"gauntlet/middlebox"
)

// The protocols by which a host inside asks for a port mapping.
const (
	natPMP = "nat-pmp" // RFC 6886
	pcp    = "pcp"     // RFC 6887
	upnp   = "upnp"    // UPnP IGD, WANIPConnection
)

// natPMPPort is the UDP port of NAT-PMP and PCP, RFC 6886 §3.1 and RFC 6887
// §19.1.
const natPMPPort = 5351

// mappingLifetime is for how long a mapping is asked, in seconds; it is given
// back before.
const mappingLifetime = 120

// portMapper is a protocol's way to have an external port of UDP or TCP mapped to
// an internal one of the host that asks. It returns the external port.
type portMapper func(p *prober, at Host, gateway netip.Addr, of middlebox.Protocol, port uint16, seconds uint32) (uint16, error)

// PortMapping measures by which protocols a host inside has the box whose
// address inside is gateway let everybody in by some protocols, and sets
// PortMapping and TCPPortMapping where UDP and TCP are among them and pass: a
// stranger's packet that does not get in before the mapping gets in after it, and
// the answer leaves from the mapped port.
func PortMapping(ctx context.Context, w *Watch, s Subject, gateway netip.Addr, m *Properties, protocols ...middlebox.Protocol) error {
	p := begin(ctx, w, s)
	for _, of := range []struct {
		protocol middlebox.Protocol
		passes   bool
		works    func(ask portMapper, gateway netip.Addr) (bool, error)
		into     *[]string
	}{
		{middlebox.UDP, p.udpPasses, p.mapsUDP, &m.PortMapping},
		{middlebox.TCP, m.TCPFiltering != "", p.mapsTCP, &m.TCPPortMapping}, // which only TCP that passes gives
	} {
		if !of.passes || !slices.Contains(protocols, of.protocol) {
			continue
		}
		*of.into = []string{} // measured
		for _, by := range []struct {
			name string
			ask  portMapper
		}{{natPMP, askNATPMP}, {pcp, askPCP}, {upnp, askUPnP}} {
			works, err := of.works(by.ask, gateway)
			if err != nil {
				p.fail(fmt.Errorf("%s, %s: %w", by.name, of.protocol, err))
			}
			if works {
				*of.into = append(*of.into, by.name)
			}
		}
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("measure port mappings: %w", err)
	}
	return nil
}

// mapsUDP asks for one mapping, tries it and gives it back.
func (p *prober) mapsUDP(ask portMapper, gateway netip.Addr) (bool, error) {
	inside, stranger, other := p.udp(p.LAN[0]), p.udp(p.WAN[1]), p.udp(p.WAN[2])
	if p.err != nil {
		return false, nil
	}
	port := inside.local.Port()
	before := p.reaches(stranger, netip.AddrPortFrom(p.External[0], port), inside)
	return p.whileMapped(ask, gateway, middlebox.UDP, port, func(mapped netip.AddrPort) bool {
		return !before && p.reaches(other, mapped, inside) && p.observe(inside, other) == mapped
	})
}

// mapsTCP is mapsUDP for TCP.
func (p *prober) mapsTCP(ask portMapper, gateway netip.Addr) (bool, error) {
	inside, stranger, other := p.point(p.LAN[0]), p.point(p.WAN[1]), p.point(p.WAN[2])
	if p.err != nil {
		return false, nil
	}
	port := inside.local.Port()
	unmapped := netip.AddrPortFrom(p.External[0], port)
	before := p.reached(p.segmentFate(stranger, flagSYN, unmapped), stranger, unmapped, inside)
	return p.whileMapped(ask, gateway, middlebox.TCP, port, func(mapped netip.AddrPort) bool {
		if before || !p.reached(p.segmentFate(other, flagSYN, mapped), other, mapped, inside) {
			return false
		}
		inside.ack = other.next
		f := p.segmentFate(inside, flagSYN|flagACK, other.local)
		return f.at == receiver(other) && f.from == mapped
	})
}

// whileMapped tries something while a port is mapped.
func (p *prober) whileMapped(ask portMapper, gateway netip.Addr, of middlebox.Protocol, port uint16, try func(mapped netip.AddrPort) bool) (bool, error) {
	external, err := ask(p, p.LAN[0], gateway, of, port, mappingLifetime)
	var no refusal
	if errors.As(err, &no) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if p.Mapped != nil {
		p.fail(p.Mapped())
	}
	works := try(netip.AddrPortFrom(p.External[0], external))
	_, err = ask(p, p.LAN[0], gateway, of, port, 0)
	return works, err
}

// refusal is a box's answer that it makes no such mapping.
type refusal struct{ why string }

func (r refusal) Error() string { return "refused: " + r.why }

// exchange sends a request from a host to a box's port and returns the answer. It
// doesn't send it again after a while, which RFC 6886 §3.1 has hosts do: nothing is
// lost on the way, and of a slow box the second answer's mapping could take the
// place of the first's while that is tried.
func exchange(ctx context.Context, at Host, to netip.AddrPort, request []byte) ([]byte, error) {
	var c *net.UDPConn
	err := at.Space.Do(func() (err error) {
		c, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr, 0)), net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(deadline(ctx))
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err = c.Write(request); err != nil {
		return nil, err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err != nil {
		return nil, fmt.Errorf("no answer from %v: %w", to, errors.Join(err, context.Cause(ctx)))
	}
	return answer[:n], nil
}

// natPMPOpcodes are those of requests for mappings, RFC 6886 §3.3.
var natPMPOpcodes = map[middlebox.Protocol]byte{middlebox.UDP: 1, middlebox.TCP: 2}

// NAT-PMP's request for a mapping, RFC 6886 §3.3: version 0, opcode, two
// reserved bytes, internal port, suggested external port, lifetime. A lifetime
// of 0 gives it back, with a suggested port of 0 (§3.4).
func natPMPRequest(of middlebox.Protocol, port uint16, seconds uint32) []byte {
	suggested := port
	if seconds == 0 {
		suggested = 0
	}
	m := []byte{0, natPMPOpcodes[of], 0, 0}
	m = binary.BigEndian.AppendUint16(m, port)
	m = binary.BigEndian.AppendUint16(m, suggested)
	return binary.BigEndian.AppendUint32(m, seconds)
}

// parseNATPMP reads the answer of 16 bytes: version, opcode + 128, result code,
// seconds since start of epoch, internal port, external port, lifetime.
func parseNATPMP(m []byte, of middlebox.Protocol, port uint16) (uint16, error) {
	switch {
	case len(m) < 4 || m[0] != 0 || m[1] != 128+natPMPOpcodes[of]:
		return 0, fmt.Errorf("answer % x; expected opcode %d of version 0", m, 128+natPMPOpcodes[of])
	case binary.BigEndian.Uint16(m[2:]) != 0:
		return 0, refusal{fmt.Sprintf("result code %d", binary.BigEndian.Uint16(m[2:]))}
	case len(m) != 16 || binary.BigEndian.Uint16(m[8:]) != port:
		return 0, fmt.Errorf("answer % x; expected 16 bytes about port %d", m, port)
	}
	return binary.BigEndian.Uint16(m[10:]), nil
}

func askNATPMP(p *prober, at Host, gateway netip.Addr, of middlebox.Protocol, port uint16, seconds uint32) (uint16, error) {
	answer, err := exchange(p.ctx, at, netip.AddrPortFrom(gateway, natPMPPort), natPMPRequest(of, port, seconds))
	if err != nil {
		return 0, err
	}
	return parseNATPMP(answer, of, port)
}

// Sizes and numbers of PCP, RFC 6887 §7.1, §7.2 and §11.1.
const (
	pcpVersion = 2
	pcpMap     = 1
	pcpHeader  = 24
	pcpNonce   = 12
	pcpSize    = pcpHeader + 36
)

// pcpRequest is a MAP request: version, opcode, two reserved bytes, lifetime,
// the client's address; nonce, protocol, three reserved bytes, internal port,
// suggested external port and address, all of zeros for none (§11.1).
func pcpRequest(client netip.Addr, nonce [pcpNonce]byte, of middlebox.Protocol, port uint16, seconds uint32) []byte {
	m := []byte{pcpVersion, pcpMap, 0, 0}
	m = binary.BigEndian.AppendUint32(m, seconds)
	mapped := netip.AddrFrom16(client.As16())
	m = append(m, mapped.AsSlice()...)
	m = append(m, nonce[:]...)
	m = append(m, numbers[of], 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, port)
	suggested := port
	if seconds == 0 {
		suggested = 0
	}
	m = binary.BigEndian.AppendUint16(m, suggested)
	none := netip.AddrFrom16(netip.IPv4Unspecified().As16()) // ::ffff:0.0.0.0, for any of IPv4
	return append(m, none.AsSlice()...)
}

// parsePCP reads the answer: as the request, but with the bit R of the opcode,
// a result code, and the epoch in place of the client's address.
func parsePCP(m []byte, nonce [pcpNonce]byte, of middlebox.Protocol, port uint16) (uint16, error) {
	switch {
	case len(m) < 4 || m[0] != pcpVersion || m[1] != 128|pcpMap:
		return 0, fmt.Errorf("answer % x; expected a response to MAP of version %d", m, pcpVersion)
	case m[3] != 0:
		return 0, refusal{fmt.Sprintf("result code %d", m[3])}
	case len(m) < pcpSize || !slices.Equal(m[pcpHeader:pcpHeader+pcpNonce], nonce[:]) || m[36] != numbers[of] || binary.BigEndian.Uint16(m[40:]) != port:
		return 0, fmt.Errorf("answer % x; expected %d bytes about %s port %d", m, pcpSize, of, port)
	}
	return binary.BigEndian.Uint16(m[42:]), nil
}

// askPCP uses one nonce for a host's mappings, since who gives one back must
// show that of the request (RFC 6887 §11.1).
func askPCP(p *prober, at Host, gateway netip.Addr, of middlebox.Protocol, port uint16, seconds uint32) (uint16, error) {
	if p.nonce == [pcpNonce]byte{} {
		rand.Read(p.nonce[:])
	}
	answer, err := exchange(p.ctx, at, netip.AddrPortFrom(gateway, natPMPPort), pcpRequest(at.Addr, p.nonce, of, port, seconds))
	if err != nil {
		return 0, err
	}
	return parsePCP(answer, p.nonce, of, port)
}

// programs fills in what the programs of a box do. Of a chain they are measured
// at each box by itself.
func (d *Properties) programs(chain []middlebox.Behaviour) {
	if len(chain) != 1 {
		return
	}
	d.Proxy = string(chain[0].Proxy)
	if chain[0].PortMapping && passes(chain, middlebox.Service{Protocol: middlebox.UDP}) {
		d.PortMapping = []string{natPMP, pcp, upnp}
	}
	if chain[0].PortMapping && passes(chain, middlebox.Service{Protocol: middlebox.TCP}) {
		d.TCPPortMapping = []string{natPMP, pcp, upnp}
	}
}
