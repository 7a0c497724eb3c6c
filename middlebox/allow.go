package middlebox

import (
	"fmt"
	"strconv"
	"strings"
)

// Service is what an allow list names: a protocol, and a port of whoever is
// reached.
type Service struct {
	Protocol Protocol
	Port     uint16 // 0 is every port
}

// ParseService reads PROTO[:PORT], such as "tcp:443".
func ParseService(s string) (Service, error) {
	proto, port, given := strings.Cut(s, ":")
	out := Service{Protocol: Protocol(proto)}
	if out.Protocol != UDP && out.Protocol != TCP {
		return Service{}, fmt.Errorf("allow %q: protocol %q; expected udp or tcp", s, proto)
	}
	if given {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Service{}, fmt.Errorf("allow %q: port %q; expected 1 to 65535", s, port)
		}
		out.Port = uint16(n)
	}
	return out, nil
}

// String is what ParseService reads.
func (s Service) String() string {
	if s.Port == 0 {
		return string(s.Protocol)
	}
	return string(s.Protocol) + ":" + strconv.Itoa(int(s.Port))
}
