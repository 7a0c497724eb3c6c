// Package stun finds out what box a node is behind, in the words of RFC 4787,
// with tests in the style of RFC 5780. Supernodes answer plain Binding requests
// (RFC 8489) on two ports. An answer from elsewhere is not asked for in the
// request, as in RFC 5780 §6.1, but over the authenticated link of a session,
// and goes to that session's own address only: so no supernode is a reflector.
package stun

import (
	"fmt"
	"net"
	"net/netip"

	pion "github.com/pion/stun/v3"

	"gauntlet/nodes/datagram"
)

// ID is a STUN transaction id.
type ID = [pion.TransactionIDSize]byte

// padding is the attribute that fills a request up to the size of its
// response (RFC 5780 §7.6); paddingSize is 20 bytes of response header and 24
// of an IPv6 XOR-MAPPED-ADDRESS, less the request's own header and the
// attribute's.
const (
	padding     = pion.AttrType(0x0026)
	paddingSize = 20
)

// Alternate is the second port of a supernode's UDP address: the one after
// the first.
func Alternate(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
}

// Serve has the socket answer Binding requests with the address that they come
// from. A request shorter than its response is not answered. Requests with a
// USERNAME are left to others: they are checks of a call.
func Serve(s *datagram.Socket) (cancel func()) {
	return s.HandleSTUN(func(from netip.AddrPort, m *pion.Message) bool {
		if m.Type != pion.BindingRequest || m.Contains(pion.AttrUsername) {
			return false
		}
		response, err := Response(m.TransactionID, from)
		if err != nil || len(response) > len(m.Raw) {
			return true
		}
		s.WriteTo(response, from) // a lost response is asked for again
		return true
	})
}

// Response makes a Binding success response that says addr.
func Response(id ID, addr netip.AddrPort) ([]byte, error) {
	m, err := pion.Build(pion.NewTransactionIDSetter(id), pion.BindingSuccess,
		&pion.XORMappedAddress{IP: net.IP(addr.Addr().AsSlice()), Port: int(addr.Port())})
	if err != nil {
		return nil, fmt.Errorf("make STUN response: %w", err)
	}
	return m.Raw, nil
}

// Request makes a padded Binding request.
func Request(id ID) (*pion.Message, error) {
	m, err := pion.Build(pion.NewTransactionIDSetter(id), pion.BindingRequest,
		pion.RawAttribute{Type: padding, Value: make([]byte, paddingSize)})
	if err != nil {
		return nil, fmt.Errorf("make STUN request: %w", err)
	}
	return m, nil
}

// Mapped reads the address out of a Binding success response.
func Mapped(m *pion.Message) (netip.AddrPort, error) {
	if m.Type != pion.BindingSuccess {
		return netip.AddrPort{}, fmt.Errorf("STUN response: %s, want success", m.Type)
	}
	var x pion.XORMappedAddress
	if err := x.GetFrom(m); err != nil {
		return netip.AddrPort{}, fmt.Errorf("STUN response: %w", err)
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("STUN response: address %s", x.IP)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)), nil
}
