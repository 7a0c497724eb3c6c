package middlebox

import (
	"fmt"
	"strconv"
	"strings"
)

// Deny is one external host that nobody inside can talk to, whoever starts.
type Deny struct {
	Host     string   // name of the host
	Protocol Protocol // "" is every protocol
	Port     uint16   // the host's port; 0 is every port
}

// ParseDeny reads HOST[:PROTO[:PORT]], such as "login:tcp:443".
func ParseDeny(s string) (Deny, error) {
	parts := strings.Split(s, ":")
	if len(parts) > 3 || parts[0] == "" {
		return Deny{}, fmt.Errorf("deny %q; expected HOST[:PROTO[:PORT]]", s)
	}
	d := Deny{Host: parts[0]}
	if len(parts) > 1 {
		d.Protocol = Protocol(parts[1])
		if d.Protocol != UDP && d.Protocol != TCP {
			return Deny{}, fmt.Errorf("deny %q: protocol %q; expected udp or tcp", s, parts[1])
		}
	}
	if len(parts) > 2 {
		port, err := strconv.ParseUint(parts[2], 10, 16)
		if err != nil || port == 0 {
			return Deny{}, fmt.Errorf("deny %q: port %q; expected 1 to 65535", s, parts[2])
		}
		d.Port = uint16(port)
	}
	return d, nil
}

// String is what ParseDeny reads.
func (d Deny) String() string {
	s := d.Host
	if d.Protocol != "" {
		s += ":" + string(d.Protocol)
	}
	if d.Port != 0 {
		s += ":" + strconv.Itoa(int(d.Port))
	}
	return s
}

// Covers says whether all that the other denies is denied by d.
func (d Deny) Covers(other Deny) bool {
	return d.Host == other.Host && (d.Protocol == "" || d.Protocol == other.Protocol) && (d.Port == 0 || d.Port == other.Port)
}
