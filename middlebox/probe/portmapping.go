package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// firstRetry is how long the first answer is waited for; each further one twice
// as long (RFC 6886 §3.1).
const firstRetry = 250 * time.Millisecond

// portMapper is a protocol's way to have an external port mapped to an internal
// one of the host that asks. It returns the external port.
type portMapper func(p *prober, at Host, gateway netip.Addr, port uint16, seconds uint32) (uint16, error)

// PortMapping measures by which protocols a host inside has the box whose
// address inside is gateway let everybody in: a datagram of a stranger that
// does not get in before the mapping gets in after it, and the answer leaves
// from the mapped port. It must not be nil, which is that nothing was measured.
func PortMapping(ctx context.Context, w *Watch, s Subject, gateway netip.Addr) ([]string, error) {
	p := begin(ctx, w, s)
	found := []string{}
	for _, protocol := range []struct {
		name string
		ask  portMapper
	}{{natPMP, askNATPMP}, {pcp, askPCP}, {upnp, askUPnP}} {
		works, err := p.mapsPort(protocol.ask, gateway)
		if err != nil {
			p.fail(fmt.Errorf("%s: %w", protocol.name, err))
		}
		if works {
			found = append(found, protocol.name)
		}
	}
	if err := p.end(); err != nil {
		return nil, fmt.Errorf("measure port mappings: %w", err)
	}
	return found, nil
}

// mapsPort asks for one mapping, tries it and gives it back.
func (p *prober) mapsPort(ask portMapper, gateway netip.Addr) (bool, error) {
	inside, stranger, other := p.udp(p.LAN[0]), p.udp(p.WAN[1]), p.udp(p.WAN[2])
	if p.err != nil {
		return false, nil
	}
	port := inside.local.Port()
	before := p.reaches(stranger, netip.AddrPortFrom(p.External[0], port), inside)
	external, err := ask(p, p.LAN[0], gateway, port, mappingLifetime)
	var no refusal
	if errors.As(err, &no) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mapped := netip.AddrPortFrom(p.External[0], external)
	works := !before && p.reaches(other, mapped, inside) && p.observe(inside, other) == mapped
	_, err = ask(p, p.LAN[0], gateway, port, 0)
	return works, err
}

// refusal is a box's answer that it makes no such mapping.
type refusal struct{ why string }

func (r refusal) Error() string { return "refused: " + r.why }

// exchange sends a request from a host to a box's port until it is answered.
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
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	answer := make([]byte, 1500)
	for wait := firstRetry; wait < patience; wait *= 2 {
		if _, err = c.Write(request); err != nil {
			return nil, err
		}
		c.SetReadDeadline(time.Now().Add(wait))
		var n int
		if n, err = c.Read(answer); err == nil {
			return answer[:n], nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no answer from %v: %w", to, errors.Join(err, context.Cause(ctx)))
}

// NAT-PMP's request for a UDP mapping, RFC 6886 §3.3: version 0, opcode 1, two
// reserved bytes, internal port, suggested external port, lifetime. A lifetime
// of 0 gives it back, with a suggested port of 0 (§3.4).
func natPMPRequest(port uint16, seconds uint32) []byte {
	suggested := port
	if seconds == 0 {
		suggested = 0
	}
	m := []byte{0, 1, 0, 0}
	m = binary.BigEndian.AppendUint16(m, port)
	m = binary.BigEndian.AppendUint16(m, suggested)
	return binary.BigEndian.AppendUint32(m, seconds)
}

// parseNATPMP reads the answer of 16 bytes: version, opcode + 128, result code,
// seconds since start of epoch, internal port, external port, lifetime.
func parseNATPMP(m []byte, port uint16) (uint16, error) {
	switch {
	case len(m) < 4 || m[0] != 0 || m[1] != 128+1:
		return 0, fmt.Errorf("answer % x; expected opcode 129 of version 0", m)
	case binary.BigEndian.Uint16(m[2:]) != 0:
		return 0, refusal{fmt.Sprintf("result code %d", binary.BigEndian.Uint16(m[2:]))}
	case len(m) != 16 || binary.BigEndian.Uint16(m[8:]) != port:
		return 0, fmt.Errorf("answer % x; expected 16 bytes about port %d", m, port)
	}
	return binary.BigEndian.Uint16(m[10:]), nil
}

func askNATPMP(p *prober, at Host, gateway netip.Addr, port uint16, seconds uint32) (uint16, error) {
	answer, err := exchange(p.ctx, at, netip.AddrPortFrom(gateway, natPMPPort), natPMPRequest(port, seconds))
	if err != nil {
		return 0, err
	}
	return parseNATPMP(answer, port)
}

// Sizes and numbers of PCP, RFC 6887 §7.1, §7.2 and §11.1.
const (
	pcpVersion = 2
	pcpMap     = 1
	pcpHeader  = 24
	pcpNonce   = 12
	pcpSize    = pcpHeader + 36
	protoUDP   = 17 // of IANA's protocol numbers
)

// pcpRequest is a MAP request: version, opcode, two reserved bytes, lifetime,
// the client's address; nonce, protocol, three reserved bytes, internal port,
// suggested external port and address, all of zeros for none (§11.1).
func pcpRequest(client netip.Addr, nonce [pcpNonce]byte, port uint16, seconds uint32) []byte {
	m := []byte{pcpVersion, pcpMap, 0, 0}
	m = binary.BigEndian.AppendUint32(m, seconds)
	mapped := netip.AddrFrom16(client.As16())
	m = append(m, mapped.AsSlice()...)
	m = append(m, nonce[:]...)
	m = append(m, protoUDP, 0, 0, 0)
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
func parsePCP(m []byte, nonce [pcpNonce]byte, port uint16) (uint16, error) {
	switch {
	case len(m) < 4 || m[0] != pcpVersion || m[1] != 128|pcpMap:
		return 0, fmt.Errorf("answer % x; expected a response to MAP of version %d", m, pcpVersion)
	case m[3] != 0:
		return 0, refusal{fmt.Sprintf("result code %d", m[3])}
	case len(m) < pcpSize || !slices.Equal(m[pcpHeader:pcpHeader+pcpNonce], nonce[:]) || binary.BigEndian.Uint16(m[40:]) != port:
		return 0, fmt.Errorf("answer % x; expected %d bytes about port %d", m, pcpSize, port)
	}
	return binary.BigEndian.Uint16(m[42:]), nil
}

// askPCP uses one nonce for a host's mappings, since who gives one back must
// show that of the request (RFC 6887 §11.1).
func askPCP(p *prober, at Host, gateway netip.Addr, port uint16, seconds uint32) (uint16, error) {
	if p.nonce == [pcpNonce]byte{} {
		rand.Read(p.nonce[:])
	}
	answer, err := exchange(p.ctx, at, netip.AddrPortFrom(gateway, natPMPPort), pcpRequest(at.Addr, p.nonce, port, seconds))
	if err != nil {
		return 0, err
	}
	return parsePCP(answer, p.nonce, port)
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
}
