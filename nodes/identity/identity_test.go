package identity

import (
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is an authority and what it has issued, made once for all tests, as
// RSA keys take their time.
type world struct {
	authority *Authority
	roots     Roots
	keys      map[string]*Keys
	certs     map[string]*Certificate
	rsa       *rsa.PrivateKey
}

var theWorld = sync.OnceValues(func() (*world, error) {
	a, err := NewAuthority(time.Now, time.Hour)
	if err != nil {
		return nil, err
	}
	p, err := a.Public()
	if err != nil {
		return nil, err
	}
	w := &world{authority: a, keys: map[string]*Keys{}, certs: map[string]*Certificate{}}
	if w.roots, err = p.Roots(); err != nil {
		return nil, err
	}
	if w.rsa, err = NewRSA(); err != nil {
		return nil, err
	}
	for _, role := range []string{RoleClient, RoleSupernode, RoleLogin} {
		if w.keys[role], err = NewKeys(); err != nil {
			return nil, err
		}
		if w.certs[role], err = a.Issue(w.subject(role), time.Hour); err != nil {
			return nil, err
		}
	}
	return w, nil
})

func (w *world) subject(role string) Subject {
	s := Subject{Name: "the-" + role, Role: role, Sign: w.keys[role].Public(), Seal: w.keys[role].Seal.PublicKey()}
	switch role {
	case RoleClient:
		s.RSA = &w.rsa.PublicKey
	case RoleSupernode:
		s.Addr = netip.MustParseAddrPort("198.18.0.11:33033")
	}
	return s
}

func getWorld(t testing.TB) *world {
	t.Helper()
	w, err := theWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestIssueAndParse(t *testing.T) {
	w := getWorld(t)
	// The sizes are what a datagram and memberlist's metadata have room for.
	most := map[string]int{RoleClient: 700, RoleSupernode: 420, RoleLogin: 420}
	for role, limit := range most {
		c, err := Parse(w.certs[role].DER)
		if err != nil {
			t.Fatal(err)
		}
		s := w.subject(role)
		if c.Name != s.Name || c.Role != role || c.Addr != s.Addr || !c.Sign.Equal(s.Sign) || !c.Seal.Equal(s.Seal) {
			t.Errorf("%s: parsed %+v", role, c)
		}
		if (c.RSA != nil) != (role == RoleClient) || c.RSA != nil && !c.RSA.Equal(s.RSA) {
			t.Errorf("%s: RSA key %v", role, c.RSA)
		}
		if len(c.DER) > limit {
			t.Errorf("certificate of a %s takes %d bytes, want at most %d", role, len(c.DER), limit)
		}
		if err := w.roots.Verify(c, time.Now()); err != nil {
			t.Error(err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	w := getWorld(t)
	c := w.certs[RoleClient]
	for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Now().Add(2 * time.Hour)} {
		if err := w.roots.Verify(c, at); !errors.Is(err, ErrExpired) {
			t.Errorf("at %s: %v", at, err)
		}
	}
	other, err := NewAuthority(time.Now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.Public()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := p.Roots()
	if err != nil {
		t.Fatal(err)
	}
	if err := roots.Verify(c, time.Now()); err == nil {
		t.Error("another authority's certificate is taken")
	}
	if err := (Roots{}).Verify(c, time.Now()); err == nil {
		t.Error("taken without an authority")
	}
	der := append([]byte(nil), c.DER...)
	der[len(der)-1] ^= 1
	if bad, err := Parse(der); err == nil && w.roots.Verify(bad, time.Now()) == nil {
		t.Error("a changed certificate is taken")
	}
}

func TestIssueRefuses(t *testing.T) {
	w := getWorld(t)
	for _, change := range []func(*Subject){
		func(s *Subject) { s.Name = "a b" },
		func(s *Subject) { s.Name = strings.Repeat("a", 65) },
		func(s *Subject) { s.Role = "king" },
		func(s *Subject) { s.Seal = nil },
		func(s *Subject) { s.RSA = nil },
		func(s *Subject) { s.Addr = netip.MustParseAddrPort("198.18.0.1:1") },
	} {
		s := w.subject(RoleClient)
		change(&s)
		if c, err := w.authority.Issue(s, time.Hour); err == nil {
			t.Errorf("issued %+v", c)
		}
	}
}

func TestWrapKey(t *testing.T) {
	w := getWorld(t)
	key := []byte("0123456789abcdef0123456789abcdef")
	wrapped, err := WrapKey(w.roots.RSA(), key, []byte("label"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.authority.UnwrapKey(wrapped, []byte("label")); err != nil || string(got) != string(key) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := w.authority.UnwrapKey(wrapped, []byte("another")); err == nil {
		t.Error("unwrapped with another label")
	}
}

// counted counts what is read, to bound a handshake's size.
type counted struct {
	net.Conn
	read int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read += n
	return n, err
}

// shake does a handshake in memory.
func shake(client, server *tls.Config) (toClient, toServer int, clientErr, serverErr error) {
	a, b := net.Pipe()
	near, far := &counted{Conn: a}, &counted{Conn: b}
	var wg sync.WaitGroup
	wg.Go(func() {
		c := tls.Server(far, server)
		if serverErr = c.Handshake(); serverErr == nil {
			c.Write([]byte("x"))
		}
		b.Close()
	})
	c := tls.Client(near, client)
	if clientErr = c.Handshake(); clientErr == nil {
		// In TLS 1.3 the server's refusal comes after the client is done.
		_, clientErr = c.Read(make([]byte, 1))
	}
	a.Close()
	wg.Wait()
	return near.read, far.read, clientErr, serverErr
}

func TestTLS(t *testing.T) {
	w := getWorld(t)
	sn := func(auth Authentication, roles ...string) *tls.Config {
		return ServerTLS(w.keys[RoleSupernode], w.certs[RoleSupernode], w.roots, auth, []string{ALPNLink}, roles...)
	}
	user := func(alpn string, cert *Certificate, roles ...string) *tls.Config {
		return ClientTLS(w.keys[RoleClient], cert, w.roots, alpn, roles...)
	}
	enrol, err := EnrolTLS(w.keys[RoleClient], "x", w.roots)
	if err != nil {
		t.Fatal(err)
	}
	enrol.NextProtos = []string{ALPNLink}
	enrolAtSupernode := enrol.Clone()
	enrolAtSupernode.VerifyConnection = nil
	cert := w.certs[RoleClient]
	for _, test := range []struct {
		name           string
		client, server *tls.Config
		ok             bool
	}{
		{"mutual", user(ALPNLink, cert, RoleSupernode), sn(Required, RoleClient), true},
		{"before login", user(ALPNLink, nil, RoleSupernode), sn(Optional, RoleClient), true},
		{"without a certificate", user(ALPNLink, nil, RoleSupernode), sn(Required, RoleClient), false},
		{"server of another role", user(ALPNLink, cert, RoleLogin), sn(Required, RoleClient), false},
		{"client of another role", user(ALPNLink, cert, RoleSupernode), sn(Required, RoleSupernode), false},
		{"another protocol", user(ALPNCall, cert, RoleSupernode), sn(Required, RoleClient), false},
		{"own certificate where one is optional", enrolAtSupernode, sn(Optional, RoleClient), false},
		{"own certificate at enrolment", enrolAtSupernode, sn(Possession), true},
		{"server not pinned", ClientTLS(w.keys[RoleClient], cert, Roots{}, ALPNLink, RoleSupernode), sn(Optional, RoleClient), false},
	} {
		down, up, cerr, serr := shake(test.client, test.server)
		if ok := cerr == nil && serr == nil; ok != test.ok {
			t.Errorf("%s: client %v, server %v; want success %v", test.name, cerr, serr, test.ok)
		}
		if down > 4096 || up > 4096 {
			t.Errorf("%s: handshake of %d and %d bytes, want less than 4096", test.name, down, up)
		}
	}
}

func FuzzExtension(f *testing.F) {
	w := getWorld(f)
	for _, c := range w.certs {
		b, err := c.appendExtension()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Certificate
		if c.parseExtension(b) != nil {
			return
		}
		again, err := c.appendExtension()
		if err != nil {
			t.Fatalf("what was parsed can't be written: %v", err)
		}
		var d Certificate
		if err := d.parseExtension(again); err != nil || d.Role != c.Role || d.Addr != c.Addr || !d.Seal.Equal(c.Seal) {
			t.Errorf("%+v became %+v, %v", c, d, err)
		}
	})
}

func FuzzCertificate(f *testing.F) {
	for _, c := range getWorld(f).certs {
		f.Add(c.DER)
	}
	roots := getWorld(f).roots
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := Parse(der)
		if err != nil {
			return
		}
		roots.Verify(c, time.Now())
		if CheckName(c.Name) != nil || c.Seal == nil {
			t.Errorf("parsed %+v", c)
		}
	})
}
