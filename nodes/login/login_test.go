package login

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	serverAddr    = netip.MustParseAddrPort("198.18.0.1:33033")
	supernodeAddr = netip.MustParseAddrPort("198.18.0.2:33033")
	clientAddr    = netip.MustParseAddr("198.18.0.3")
)

// fixture is a login server on an internet in memory, in real time: hashing
// passwords takes some.
type fixture struct {
	net       *memory.Internet
	roots     identity.Roots
	authority *identity.Authority
	supernode *identity.Keys
	client    *identity.Keys
	rsa       *rsa.PrivateKey
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{net: memory.New()}
	var err error
	f.authority, err = identity.NewAuthority(time.Now, time.Hour)
	check(err)
	public, err := f.authority.Public()
	check(err)
	f.roots, err = public.Roots()
	check(err)
	keys, err := identity.NewKeys()
	check(err)
	f.supernode, err = identity.NewKeys()
	check(err)
	f.client, err = identity.NewKeys()
	check(err)
	f.rsa, err = identity.NewRSA()
	check(err)
	cert, err := f.authority.Issue(identity.Subject{Name: "login", Role: identity.RoleLogin, Sign: keys.Public(),
		Seal: keys.Seal.PublicKey()}, time.Hour)
	check(err)
	accounts, err := OpenAccounts(t.Context(), t.TempDir())
	check(err)
	check(accounts.Create(t.Context(), "Alice", "secret"))
	prof, err := profile.Named("")
	check(err)
	l, err := f.net.Host("login", serverAddr.Addr()).Listen(t.Context(), serverAddr)
	check(err)
	s := NewServer(context.Background(), Config{Authority: f.authority, Keys: keys, Cert: cert, Roots: f.roots,
		Accounts: accounts, Profile: prof, Log: slog.New(slog.DiscardHandler),
		Supernodes: []Supernode{{Name: "sn1", Addr: supernodeAddr, Sign: f.supernode.Public()}}})
	s.Serve(l)
	t.Cleanup(func() {
		s.Close()
		accounts.Close()
	})
	return f
}

func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	nc, err := f.net.Host("client", clientAddr).Dial(t.Context(), serverAddr)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestExchange(t *testing.T) {
	f := newFixture(t)
	payload := bytes.Repeat([]byte{1}, MaxPayload)
	cert, err := Exchange(t.Context(), f.dial(t), f.client, f.rsa, f.roots, User{Name: "alice", Password: "secret", Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	if cert.Name != "alice" || cert.Role != identity.RoleClient || !cert.Sign.Equal(f.client.Public()) {
		t.Errorf("certificate %+v", cert)
	}
	for name, u := range map[string]User{
		"wrong password": {Name: "alice", Password: "Secret"},
		"unknown user":   {Name: "bob", Password: "secret"},
		"no password":    {Name: "alice"},
		"bad name":       {Name: "a'; --", Password: "secret"},
	} {
		_, err := Exchange(t.Context(), f.dial(t), f.client, f.rsa, f.roots, u)
		if err == nil || !strings.Contains(err.Error(), ErrCredentials.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Exchange(t.Context(), f.dial(t), f.client, f.rsa, f.roots,
		User{Name: "alice", Password: "secret", Payload: append(payload, 1)}); err == nil {
		t.Error("too large a payload is taken")
	}
	other, err := identity.NewAuthority(time.Now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	public, err := other.Public()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := public.Roots()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Exchange(t.Context(), f.dial(t), f.client, f.rsa, roots, User{Name: "alice", Password: "secret"}); err == nil {
		t.Error("credentials shown to a server that isn't pinned")
	}
}

// TestCredentialsAreBound checks that credentials made for one connection are
// of no use on another, and that changed ones are not read.
func TestCredentialsAreBound(t *testing.T) {
	f := newFixture(t)
	exporter := bytes.Repeat([]byte{1}, exporterSize)
	c := credentials{User: "alice", Password: "secret"}
	r, err := c.seal(f.client, f.rsa, f.roots.RSA(), exporter)
	if err != nil {
		t.Fatal(err)
	}
	if got, s, err := r.open(f.authority, exporter); err != nil || got.Password != "secret" || !s.Sign.Equal(f.client.Public()) {
		t.Fatalf("open: %v", err)
	}
	if _, _, err := r.open(f.authority, bytes.Repeat([]byte{2}, exporterSize)); err == nil {
		t.Error("read on another connection")
	}
	for _, b := range [][]byte{r.Key, r.Nonce, r.Sealed} {
		b[3] ^= 1
		if _, _, err := r.open(f.authority, exporter); err == nil {
			t.Error("read though changed")
		}
		b[3] ^= 1
	}
	// Somebody else's public keys: the proofs don't fit.
	stranger, err := identity.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	c.Sign = stranger.Public()
	if _, err := c.subject(exporter); err == nil {
		t.Error("a key is taken without proof")
	}
	if bytes.Contains(r.Sealed, []byte("secret")) {
		t.Error("the password is readable")
	}
}

func TestEnrol(t *testing.T) {
	f := newFixture(t)
	cert, err := Enrol(t.Context(), f.dial(t), f.supernode, "sn1", supernodeAddr, f.roots)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Role != identity.RoleSupernode || cert.Addr != supernodeAddr || cert.Name != "sn1" {
		t.Errorf("certificate %+v", cert)
	}
	var refused *link.Error
	if _, err := Enrol(t.Context(), f.dial(t), f.client, "sn1", supernodeAddr, f.roots); !errors.As(err, &refused) || refused.Code != link.CodeRefused {
		t.Errorf("enrolment with an unknown key: %v", err)
	}
	elsewhere := netip.AddrPortFrom(clientAddr, 33033)
	if _, err := Enrol(t.Context(), f.dial(t), f.supernode, "sn1", elsewhere, f.roots); !errors.As(err, &refused) {
		t.Errorf("enrolment at another address: %v", err)
	}
}

func TestAttemptsAreLimited(t *testing.T) {
	f := newFixture(t)
	var limited atomic.Bool
	var attempts sync.WaitGroup
	for range userBurst + 20 { // at once: hashing passwords one by one may take seconds
		conn := f.dial(t)
		attempts.Go(func() {
			_, err := Exchange(t.Context(), conn, f.client, f.rsa, f.roots, User{Name: "alice", Password: "x"})
			var refused *link.Error
			if errors.As(err, &refused) && refused.Code == link.CodeRefused {
				limited.Store(true)
			}
		})
	}
	attempts.Wait()
	if !limited.Load() {
		t.Errorf("%d wrong passwords at once, and none refused unseen", userBurst+2)
	}
}

func TestAccounts(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenAccounts(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(t.Context(), "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	if err := a.Create(t.Context(), "ALICE", "other"); !errors.Is(err, ErrTaken) {
		t.Errorf("the same name again: %v", err)
	}
	for _, bad := range [][2]string{{"a b", "x"}, {"", "x"}, {"bob", ""}, {"bob", strings.Repeat("x", maxPassword+1)}} {
		if err := a.Create(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("account %q with a password of %d bytes is made", bad[0], len(bad[1]))
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// A second run finds what the first has written.
	if a, err = OpenAccounts(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Check(t.Context(), "Alice", "secret"); err != nil {
		t.Error(err)
	}
	if err := a.Check(t.Context(), "alice", "other"); !errors.Is(err, ErrCredentials) {
		t.Errorf("wrong password: %v", err)
	}
	var stored string
	if err := a.db.QueryRow(`SELECT password FROM accounts`).Scan(&stored); err != nil || !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("stored %q, %v", stored, err)
	}
	if _, err := OpenAccounts(t.Context(), filepath.Join(dir, "nowhere")); err == nil {
		t.Error("opened in a folder that isn't there")
	}
}

// TestPHC checks a string of the test vectors of Argon2's reference
// implementation: password "password", salt "somesalt".
func TestPHC(t *testing.T) {
	h := newHasher()
	const phc = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, err := h.verify(t.Context(), phc, "password"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := h.verify(t.Context(), phc, "passwore"); ok || err != nil {
		t.Errorf("wrong password: %v, %v", ok, err)
	}
	for _, bad := range []string{"", "x", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA", "$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"} {
		if ok, err := h.verify(t.Context(), bad, "password"); ok || err == nil {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
}

// joined is a relay between two ends.
func joined(t *testing.T, limit int64, within time.Duration) (client, server net.Conn, wait func() (int64, error)) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	var moved int64
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { moved, err = Relay(t.Context(), b, c, limit, within) })
	return a, d, func() (int64, error) {
		wg.Wait()
		return moved, err
	}
}

func TestRelayBounds(t *testing.T) {
	client, server, wait := joined(t, 1000, time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, server) })
	if _, err := client.Write(make([]byte, 600)); err != nil {
		t.Fatal(err)
	}
	client.Write(make([]byte, 600))
	if moved, err := wait(); !errors.Is(err, errLimit) {
		t.Errorf("moved %d, %v; want the limit", moved, err)
	}
	server.Close()
	wg.Wait()

	_, server, wait = joined(t, 1000, 50*time.Millisecond)
	wait()
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("the relay is open after its time")
	}
}

// TestExchangeThroughRelay logs in through a relay, and checks that the relay
// sees neither name nor password.
func TestExchangeThroughRelay(t *testing.T) {
	f := newFixture(t)
	near, far := net.Pipe()
	tap := &tapped{Conn: far}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := Relay(t.Context(), tap, f.dial(t), 128<<10, time.Minute); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Log(err)
		}
	})
	cert, err := Exchange(t.Context(), near, f.client, f.rsa, f.roots, User{Name: "alice", Password: "secret", Payload: make([]byte, 32<<10)})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if bytes.Contains(tap.seen.Bytes(), []byte("secret")) || bytes.Contains(tap.seen.Bytes(), []byte("alice")) || bytes.Contains(tap.seen.Bytes(), cert.Sign) {
		t.Error("the relay can read the credentials")
	}
	if tap.seen.Len() < 32<<10 {
		t.Errorf("%d bytes went through the relay", tap.seen.Len())
	}
}

type tapped struct {
	net.Conn
	seen bytes.Buffer
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.seen.Write(b[:n])
	return n, err
}

func FuzzCredentials(f *testing.F) {
	c := credentials{User: "alice", Password: "x", Sign: make([]byte, 32), Seal: make([]byte, 32), RSA: []byte{1}}
	b, err := wire.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c credentials
		if wire.Unmarshal(b, &c) == nil {
			if s, err := c.subject(make([]byte, exporterSize)); err == nil {
				t.Errorf("proofs of nobody's keys: %+v", s)
			}
		}
	})
}

// TestServerRefusesStrangers checks that other protocols get nowhere.
func TestServerRefusesStrangers(t *testing.T) {
	f := newFixture(t)
	c := tls.Client(f.dial(t), identity.ClientTLS(f.client, nil, f.roots, identity.ALPNLink, identity.RoleLogin))
	if err := c.Handshake(); err == nil {
		t.Error("the login server speaks the link's protocol")
	}
	c.Close()
	nc := f.dial(t)
	nc.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(nc); err != nil && errors.Is(err, context.DeadlineExceeded) || bytes.Contains(b, []byte("HTTP")) {
		t.Errorf("answered %q, %v", b, err)
	}
	nc.Close()
}
