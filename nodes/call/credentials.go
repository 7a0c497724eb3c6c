package call

import (
	"net/netip"
	"strings"

	"github.com/pion/stun/v3"
)

// name is the USERNAME of requests from one end to the other, RFC 8445 §7.2.2.
func name(to, from string) string { return to + ":" + from }

// request makes a request from another end to this offer's.
func (o *offer) request(from offer) (*stun.Message, error) {
	return stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(name(o.User, from.User)),
		stun.NewShortTermIntegrity(o.Password), stun.Fingerprint)
}

// named says whether a request is for this offer's end.
func (o *offer) named(m *stun.Message) bool {
	var user stun.Username
	return user.GetFrom(m) == nil && strings.HasPrefix(user.String(), name(o.User, ""))
}

// proved says whether a request's sender knows this offer's password.
func (o *offer) proved(m *stun.Message) bool {
	return stun.NewShortTermIntegrity(o.Password).Check(m) == nil && stun.Fingerprint.Check(m) == nil
}

// success answers a request to this offer's end with where it came from.
func (o *offer) success(from netip.AddrPort, m *stun.Message) (*stun.Message, error) {
	return stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())},
		stun.NewShortTermIntegrity(o.Password), stun.Fingerprint)
}
