package directory

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/wire"
)

// world is an authority with users.
type world struct {
	t         testing.TB
	authority *identity.Authority
	roots     identity.Roots
}

func newWorld(t testing.TB) *world {
	t.Helper()
	authority, err := identity.NewAuthority(time.Now, 365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	public, err := authority.Public()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := public.Roots()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, authority: authority, roots: roots}
}

// member makes somebody with a certificate valid for a day.
func (w *world) member(name, role string) (*identity.Keys, *identity.Certificate) {
	w.t.Helper()
	keys, err := identity.NewKeys()
	if err != nil {
		w.t.Fatal(err)
	}
	subject := identity.Subject{Name: name, Role: role, Sign: keys.Public(), Seal: keys.Seal.PublicKey()}
	switch role {
	case identity.RoleClient:
		pair, err := identity.NewRSA()
		if err != nil {
			w.t.Fatal(err)
		}
		subject.RSA = &pair.PublicKey
	case identity.RoleSupernode:
		subject.Addr = netip.MustParseAddrPort("198.18.0.1:33033")
	}
	cert, err := w.authority.Issue(subject, 24*time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return keys, cert
}

func home(t testing.TB) Supernode {
	t.Helper()
	keys, err := identity.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return Supernode{Name: "sn1", Addr: netip.MustParseAddrPort("198.18.0.1:33033"), Seal: keys.Seal.PublicKey().Bytes()}
}

var someReach = Reach{UDP: true, External: netip.MustParseAddrPort("198.18.1.2:40000"),
	Listen: netip.MustParseAddrPort("10.0.0.2:40000"), PublicUDP: true}

func TestRecordIsWhatItsUserSigned(t *testing.T) {
	w := newWorld(t)
	keys, cert := w.member("alice", identity.RoleClient)
	at := home(t)
	signed, err := Sign(keys, cert, 7, time.Now(), at, someReach)
	if err != nil {
		t.Fatal(err)
	}
	r, err := signed.Open(w.roots)
	if err != nil {
		t.Fatal(err)
	}
	if r.Name() != "alice" || r.Sequence != 7 || r.Reach != someReach || r.Supernode.Addr != at.Addr {
		t.Errorf("opened %+v", r)
	}
	for i := range signed.Body {
		changed := Signed{Body: append([]byte(nil), signed.Body...), Signature: signed.Signature}
		changed.Body[i] ^= 1
		if _, err := changed.Open(w.roots); !errors.Is(err, ErrRecord) {
			t.Fatalf("changed in byte %d: %v", i, err)
		}
	}
	otherKeys, otherCert := w.member("eve", identity.RoleClient)
	snKeys, snCert := w.member("sn1", identity.RoleSupernode)
	strange := newWorld(t)
	strangeKeys, strangeCert := strange.member("alice", identity.RoleClient)
	for name, make := range map[string]func() (Signed, error){
		"with another's key":    func() (Signed, error) { return Sign(otherKeys, cert, 8, time.Now(), at, someReach) },
		"of a supernode":        func() (Signed, error) { return Sign(snKeys, snCert, 8, time.Now(), at, someReach) },
		"of another authority":  func() (Signed, error) { return Sign(strangeKeys, strangeCert, 8, time.Now(), at, someReach) },
		"after the certificate": func() (Signed, error) { return Sign(keys, cert, 8, time.Now().Add(25*time.Hour), at, someReach) },
		"with a useless key": func() (Signed, error) {
			return Sign(otherKeys, otherCert, 8, time.Now(), Supernode{Seal: []byte{1}}, someReach)
		},
		"with somebody's answer": func() (Signed, error) { return Signed{Body: signed.Body, Signature: make64()}, nil },
	} {
		bad, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bad.Open(w.roots); !errors.Is(err, ErrRecord) {
			t.Errorf("a record %s: %v", name, err)
		}
	}
}

func make64() []byte {
	b := make([]byte, 64)
	rand.Read(b)
	return b
}

// TestRecordFitsAnAnswer checks that the longest record fits the answer to a
// query, which may not be larger than a request.
func TestRecordFitsAnAnswer(t *testing.T) {
	w := newWorld(t)
	keys, cert := w.member(strings.Repeat("a", 64), identity.RoleClient)
	at := home(t)
	at.Name = strings.Repeat("s", 64)
	signed, err := Sign(keys, cert, 1<<63, time.Now(), at, someReach)
	if err != nil {
		t.Fatal(err)
	}
	padded := Signed{Body: append(signed.Body, make([]byte, MaxSigned-len(signed.Body))...), Signature: signed.Signature}
	answer, _, err := wire.SealMessage(keys.Seal.PublicKey(), wire.Message{Kind: kindQuery | wire.Answer, From: keys,
		Now: time.Now(), Answers: make([]byte, 12), Body: recordAnswer{Found: true, Record: padded}})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer) > wire.RequestSize {
		t.Errorf("the answer takes %d bytes, its request %d", len(answer), wire.RequestSize)
	}
}

func TestStoreKeepsTheNewest(t *testing.T) {
	w := newWorld(t)
	keys, cert := w.member("alice", identity.RoleClient)
	at := home(t)
	store := NewStore(w.roots, 72*time.Hour)
	now := time.Now()
	sign := func(sequence uint64, when time.Time) Signed {
		t.Helper()
		signed, err := Sign(keys, cert, sequence, when, at, someReach)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	second := sign(2, now)
	if err := store.Put(second, now); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(second, now); err != nil {
		t.Errorf("the same record again: %v", err)
	}
	if err := store.Put(sign(1, now.Add(time.Second)), now); !errors.Is(err, ErrStale) {
		t.Errorf("an older record: %v", err)
	}
	if err := store.Put(sign(2, now.Add(time.Second)), now); !errors.Is(err, ErrStale) {
		t.Errorf("another record of the same number: %v", err)
	}
	if got, ok := store.Get("Alice", now); !ok || string(got.Body) != string(second.Body) {
		t.Error("the newest record was not kept, or not under any case of the name")
	}
	third := sign(3, now)
	if err := store.Put(third, now); err != nil {
		t.Fatal(err)
	}
	if got, _ := store.Get("alice", now); string(got.Body) != string(third.Body) {
		t.Error("a newer record did not win")
	}
	if err := store.Put(sign(4, now.Add(maxSkew+time.Minute)), now); !errors.Is(err, ErrRecord) {
		t.Errorf("a record of the future: %v", err)
	}
	if store.Len() != 1 {
		t.Errorf("%d users are kept", store.Len())
	}
}

// TestUserIsFoundFor72Hours checks claim S4.
func TestUserIsFoundFor72Hours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		keys, cert := w.member("alice", identity.RoleClient)
		store := NewStore(w.roots, 72*time.Hour)
		seen := time.Now()
		signed, err := Sign(keys, cert, 1, seen, home(t), someReach)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Put(signed, seen); err != nil {
			t.Fatal(err)
		}
		time.Sleep(71 * time.Hour)
		found, ok := store.Get("alice", time.Now())
		if !ok {
			t.Fatal("not found after 71 hours")
		}
		if _, err := found.Open(w.roots); err != nil {
			t.Errorf("found after 71 hours, but cannot be opened: %v", err)
		}
		time.Sleep(time.Hour - time.Millisecond)
		if _, ok := store.Get("alice", time.Now()); !ok {
			t.Error("not found just before 72 hours")
		}
		time.Sleep(time.Millisecond)
		if _, ok := store.Get("alice", time.Now()); ok {
			t.Error("found after 72 hours")
		}
		if err := store.Put(signed, time.Now()); !errors.Is(err, ErrRecord) {
			t.Errorf("the old record, put again: %v", err)
		}
	})
}

func TestFullStoreSweepsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		keys, cert := w.member("alice", identity.RoleClient)
		store := NewStore(w.roots, time.Hour)
		now := time.Now()
		for i := range maxRecords {
			store.records[string(rune(i+0x10000))] = stored{expires: now.Add(time.Minute)}
		}
		put := func() error {
			t.Helper()
			signed, err := Sign(keys, cert, uint64(time.Now().UnixMilli()), time.Now(), home(t), someReach)
			if err != nil {
				t.Fatal(err)
			}
			return store.Put(signed, time.Now())
		}
		if err := put(); err == nil {
			t.Errorf("a store of %d records takes one more", maxRecords)
		}
		time.Sleep(2 * time.Minute)
		if err := put(); err != nil {
			t.Errorf("a store of records that are too old: %v", err)
		}
		if store.Len() != 1 {
			t.Errorf("%d records are kept", store.Len())
		}
	})
}

func FuzzOpen(f *testing.F) {
	w := newWorld(f)
	keys, cert := w.member("alice", identity.RoleClient)
	signed, err := Sign(keys, cert, 1, time.Now(), home(f), someReach)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed.Body, signed.Signature)
	f.Add([]byte{0x85}, []byte{})
	f.Fuzz(func(t *testing.T, body, signature []byte) {
		r, err := Signed{Body: body, Signature: signature}.Open(w.roots)
		if err == nil && (r.Name() != "alice" || string(body) != string(signed.Body)) {
			t.Error("a record that nobody signed is taken")
		}
		if err != nil && !errors.Is(err, ErrRecord) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}

// FuzzIntroduced plays bytes of a supernode to a client.
func FuzzIntroduced(f *testing.F) {
	w := newWorld(f)
	_, alice := w.member("alice", identity.RoleClient)
	keys, bob := w.member("bob", identity.RoleClient)
	c := &Client{Keys: keys, Cert: bob, Roots: w.roots}
	good, err := wire.Marshal(&Introduction{Kind: Open, Callee: "bob", Cert: alice.DER, UDP: someReach.External})
	if err != nil {
		f.Fatal(err)
	}
	if _, _, _, err := c.Introduced(MethodIntroduced, good); err != nil {
		f.Fatalf("the good one is refused: %v", err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, body []byte) {
		in, from, handled, err := c.Introduced(MethodIntroduced, body)
		if !handled {
			t.Fatal("not handled")
		}
		if err == nil && (from.Name != "alice" || len(in.Places) > maxPlaces) {
			t.Errorf("taken: %+v of %s", in, from.Name)
		}
	})
}
