package gateway

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"gauntlet/topo/ns"
)

// Of STUN, RFC 8489 §5 and §14.1.
const (
	stunHeader        = 20
	stunRequest       = 0x0001
	stunSuccess       = 0x0101
	stunMappedAddress = 0x0001
	stunIPv4          = 1
)

// responder answers STUN's binding requests within a box: with the external
// address of the box, and the port that a request came from.
type responder struct {
	at       netip.AddrPort
	external netip.Addr
	conn     *net.UDPConn
	done     chan struct{}
}

func newResponder(in *ns.Handle, external netip.Addr) (*responder, error) {
	r := &responder{external: external, done: make(chan struct{})}
	err := in.Do(func() (err error) {
		r.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("STUN: %w", err)
	}
	r.at = r.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	r.at = netip.AddrPortFrom(r.at.Addr().Unmap(), r.at.Port())
	go r.serve()
	return r, nil
}

func (r *responder) serve() {
	defer close(r.done)
	buffer := make([]byte, 1500)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // it is closed
		}
		if answer := answerSTUN(buffer[:n], netip.AddrPortFrom(r.external, from.Port())); answer != nil {
			r.conn.WriteToUDPAddrPort(answer, from) // who gets no answer asks again
		}
	}
}

// answerSTUN answers a binding request, nil if it is none.
func answerSTUN(request []byte, mapped netip.AddrPort) []byte {
	if len(request) < stunHeader || binary.BigEndian.Uint16(request) != stunRequest {
		return nil
	}
	a := binary.BigEndian.AppendUint16(nil, stunSuccess)
	a = binary.BigEndian.AppendUint16(a, 12) // one attribute: its header and 8 bytes
	a = append(a, request[4:stunHeader]...)
	a = binary.BigEndian.AppendUint16(a, stunMappedAddress)
	a = binary.BigEndian.AppendUint16(a, 8)
	a = append(a, 0, stunIPv4)
	a = binary.BigEndian.AppendUint16(a, mapped.Port())
	return append(a, mapped.Addr().AsSlice()...)
}

func (r *responder) close() error {
	err := r.conn.Close()
	<-r.done
	return err
}
