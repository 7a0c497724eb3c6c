package stun

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	pion "github.com/pion/stun/v3"

	"gauntlet/nodes/datagram"
)

// Behaviour, in the words of RFC 4787 §4.1 and §5.
const (
	None                 = "none"
	EndpointIndependent  = "endpoint-independent"
	AddressDependent     = "address-dependent"
	AddressPortDependent = "address-and-port-dependent"
)

// Result is what a node found out about the box in front of it.
type Result struct {
	Mapping   string         // None: the address is not translated
	Filtering string         // never None: EndpointIndependent is no filter
	External  netip.AddrPort // of the socket, as the first server saw it
}

// Elsewhere asks for a Binding response with this transaction id from where
// this socket has sent nothing to: another IP address, or else another port of
// the node's own supernode.
type Elsewhere func(ctx context.Context, id ID, otherAddress bool) error

// Config is what a detection needs.
type Config struct {
	Socket *datagram.Socket
	Local  []netip.Addr // addresses of this host
	// First is the node's own supernode, to which it has sent from this
	// socket; Second is another, at another IP address. Both answer on their
	// alternate port too.
	First, Second netip.AddrPort
	Elsewhere     Elsewhere
	// Answer bounds the wait for an answer that should come, Silence for one
	// that may never.
	Answer, Silence time.Duration
}

// Detect runs the tests of mapping and filtering at the same time: neither
// sends to an address from which the other expects silence.
func Detect(ctx context.Context, c Config) (Result, error) {
	var r Result
	var mapErr, filterErr error
	var wg sync.WaitGroup
	wg.Go(func() { r.Mapping, r.External, mapErr = c.mapping(ctx) })
	wg.Go(func() { r.Filtering, filterErr = c.filtering(ctx) })
	wg.Wait()
	if err := errors.Join(mapErr, filterErr); err != nil {
		return Result{}, fmt.Errorf("find out about the middlebox: %w", err)
	}
	return r, nil
}

// mapping is RFC 5780 §4.3: the same socket, seen from three places.
func (c Config) mapping(ctx context.Context) (string, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Answer, errors.New("no STUN response"))
	defer cancel()
	places := []netip.AddrPort{c.First, c.Second, Alternate(c.Second)}
	var seen [3]netip.AddrPort
	var errs [3]error
	var wg sync.WaitGroup
	for i, place := range places {
		wg.Go(func() { seen[i], errs[i] = Binding(ctx, c.Socket, place) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return "", netip.AddrPort{}, fmt.Errorf("mapping: %w", err)
	}
	port := c.Socket.LocalAddr().Port()
	switch {
	case seen[0] == seen[1] && seen[0].Port() == port && slices.Contains(c.Local, seen[0].Addr()):
		return None, seen[0], nil
	case seen[0] == seen[1]:
		return EndpointIndependent, seen[0], nil
	case seen[1] == seen[2]:
		return AddressDependent, seen[0], nil
	}
	return AddressPortDependent, seen[0], nil
}

// filtering is RFC 5780 §4.4: who gets in of those that were not asked.
func (c Config) filtering(ctx context.Context) (string, error) {
	var address, port bool
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { address, errs[0] = c.getsIn(ctx, true) })
	wg.Go(func() { port, errs[1] = c.getsIn(ctx, false) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return "", fmt.Errorf("filtering: %w", err)
	}
	switch {
	case address:
		return EndpointIndependent, nil
	case port:
		return AddressDependent, nil
	}
	return AddressPortDependent, nil
}

// getsIn asks for a response from elsewhere and waits for it. It is asked for
// twice, so that one lost datagram does not count as filtered.
func (c Config) getsIn(ctx context.Context, otherAddress bool) (bool, error) {
	id := pion.NewTransactionID()
	answers, cancel := c.Socket.AwaitSTUN(id)
	defer cancel()
	for range 2 {
		if err := c.Elsewhere(ctx, id, otherAddress); err != nil {
			return false, err
		}
		select {
		case <-answers:
			return true, nil
		case <-time.After(c.Silence / 2):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return false, nil
}

// Binding asks one server how it sees the socket.
func Binding(ctx context.Context, s *datagram.Socket, server netip.AddrPort) (netip.AddrPort, error) {
	m, err := Request(pion.NewTransactionID())
	if err != nil {
		return netip.AddrPort{}, err
	}
	response, err := s.STUN(ctx, server, m)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return Mapped(response)
}
