package identity

import (
	"crypto/ecdh"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
)

// extensionID names the private extension that carries what X.509 has no
// field for. It lies in the experimental arc 1.3.6.1.3 (RFC 1155 §3.1.3).
var extensionID = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 9917, 1}

// roleCodes are the roles as the extension writes them.
var roleCodes = map[string]int{RoleClient: 1, RoleSupernode: 2, RoleLogin: 3}

// extension is the ASN.1 of the private extension:
//
//	SEQUENCE { role INTEGER, seal OCTET STRING (32), rsa OCTET STRING (PKIX or empty),
//	           address OCTET STRING (4 or 16 octets of IP and 2 of port, or empty) }
type extension struct {
	Role    int
	Seal    []byte
	RSA     []byte
	Address []byte
}

func (c *Certificate) appendExtension() ([]byte, error) {
	code, ok := roleCodes[c.Role]
	if !ok {
		return nil, fmt.Errorf("unknown role %q", c.Role)
	}
	e := extension{Role: code, Seal: c.Seal.Bytes(), RSA: []byte{}, Address: []byte{}}
	if c.RSA != nil {
		der, err := x509.MarshalPKIXPublicKey(c.RSA)
		if err != nil {
			return nil, fmt.Errorf("encode RSA key: %w", err)
		}
		e.RSA = der
	}
	if c.Addr.IsValid() {
		ip := c.Addr.Addr().AsSlice()
		e.Address = append(ip, byte(c.Addr.Port()>>8), byte(c.Addr.Port()))
	}
	der, err := asn1.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode extension: %w", err)
	}
	return der, nil
}

// parseExtension fills role, seal key, RSA key and address from the DER of
// the extension.
func (c *Certificate) parseExtension(der []byte) error {
	var e extension
	rest, err := asn1.Unmarshal(der, &e)
	if err != nil {
		return fmt.Errorf("parse extension: %w", err)
	}
	if len(rest) != 0 {
		return errors.New("parse extension: data after its end")
	}
	for role, code := range roleCodes {
		if code == e.Role {
			c.Role = role
		}
	}
	if c.Role == "" {
		return fmt.Errorf("parse extension: unknown role %d", e.Role)
	}
	if c.Seal, err = ecdh.X25519().NewPublicKey(e.Seal); err != nil {
		return fmt.Errorf("parse extension: seal key: %w", err)
	}
	c.RSA = nil
	if len(e.RSA) > 0 {
		if c.RSA, err = parseRSA(e.RSA); err != nil {
			return fmt.Errorf("parse extension: %w", err)
		}
	}
	c.Addr = netip.AddrPort{}
	switch n := len(e.Address); n {
	case 0:
	case 6, 18:
		ip, _ := netip.AddrFromSlice(e.Address[:n-2])
		c.Addr = netip.AddrPortFrom(ip, uint16(e.Address[n-2])<<8|uint16(e.Address[n-1]))
	default:
		return fmt.Errorf("parse extension: address of %d octets", n)
	}
	if (c.Role == RoleSupernode) != c.Addr.IsValid() {
		return fmt.Errorf("parse extension: role %s with address %q", c.Role, e.Address)
	}
	if (c.Role == RoleClient) != (c.RSA != (*rsa.PublicKey)(nil)) {
		return fmt.Errorf("parse extension: role %s, RSA key present: %v", c.Role, c.RSA != nil)
	}
	return nil
}
