package login

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"net"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
)

// User is who logs in, and what travels sealed beside the password.
type User struct {
	Name     string
	Password string
	Payload  []byte
}

// Exchange logs a user in over nc, which leads to the login server itself or
// to a supernode that relays to it, and returns the certificate that binds the
// name to the keys. It closes nc. The server is known by the pinned authority,
// so that a relay can read and change nothing.
func Exchange(ctx context.Context, nc net.Conn, keys *identity.Keys, rsaKey *rsa.PrivateKey, roots identity.Roots, u User) (*identity.Certificate, error) {
	c, err := dial(ctx, nc, identity.ClientTLS(keys, nil, roots, identity.ALPNLogin, identity.RoleLogin), roots)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	defer c.Wait()
	defer c.Close()
	exporter, err := c.Export(exporterLabel, nil, exporterSize)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	creds := credentials{User: u.Name, Password: u.Password, Payload: u.Payload}
	req, err := creds.seal(keys, rsaKey, roots.RSA(), exporter)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	var a answer
	if err := c.Call(ctx, methodLogin, req, &a); err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	cert, err := checkIssued(a.Cert, keys, roots, identity.RoleClient)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	if cert.Name != u.Name || !cert.RSA.Equal(&rsaKey.PublicKey) {
		return nil, fmt.Errorf("log in: the certificate is for %s and another key", cert.Name)
	}
	return cert, nil
}

// dial does the handshake and starts a link without handler.
func dial(ctx context.Context, nc net.Conn, config *tls.Config, roots identity.Roots) (*link.Conn, error) {
	return link.Handshaken(ctx, ctx, tls.Client(nc, config), roots, nil)
}
