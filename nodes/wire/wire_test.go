package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"gauntlet/nodes/identity"
)

type sender struct {
	keys *identity.Keys
	cert *identity.Certificate
}

var senders = sync.OnceValues(func() ([2]sender, error) {
	var s [2]sender
	a, err := identity.NewAuthority(time.Now, time.Hour)
	if err != nil {
		return s, err
	}
	rsa, err := identity.NewRSA()
	if err != nil {
		return s, err
	}
	for i := range s {
		if s[i].keys, err = identity.NewKeys(); err != nil {
			return s, err
		}
		s[i].cert, err = a.Issue(identity.Subject{Name: "alice", Role: identity.RoleClient,
			Sign: s[i].keys.Public(), Seal: s[i].keys.Seal.PublicKey(), RSA: &rsa.PublicKey}, time.Hour)
		if err != nil {
			return s, err
		}
	}
	return s, nil
})

func two(t testing.TB) (alice, bob sender) {
	t.Helper()
	s, err := senders()
	if err != nil {
		t.Fatal(err)
	}
	return s[0], s[1]
}

type note struct {
	_    struct{} `cbor:",toarray"`
	Text string
}

func TestSealAndOpen(t *testing.T) {
	alice, bob := two(t)
	now := time.UnixMilli(1_700_000_000_123)
	for _, attach := range []bool{false, true} {
		d, err := Seal(bob.keys.Seal.PublicKey(), KindHere, alice.keys, alice.cert, attach, now, note{Text: "hello"})
		if err != nil {
			t.Fatal(err)
		}
		o, err := Open(bob.keys.Seal, d)
		if err != nil {
			t.Fatal(err)
		}
		var n note
		if err := o.Decode(&n); err != nil || n.Text != "hello" {
			t.Errorf("body %+v, %v", n, err)
		}
		if o.Kind != KindHere || !o.Time.Equal(now) || o.CertHash != alice.cert.Hash() || o.Size != len(d) ||
			!o.Reply.Equal(alice.keys.Seal.PublicKey()) || (o.Cert != nil) != attach {
			t.Errorf("opened %+v", o)
		}
		if err := o.Verify(alice.cert); err != nil {
			t.Error(err)
		}
		if err := o.Verify(bob.cert); !errors.Is(err, ErrDatagram) {
			t.Errorf("verified with another certificate: %v", err)
		}
	}
}

func TestSealAnonymous(t *testing.T) {
	alice, bob := two(t)
	d, err := Seal(bob.keys.Seal.PublicKey(), KindList, alice.keys, nil, false, time.Now(), note{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Open(bob.keys.Seal, d)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Anonymous() || o.Verify(alice.cert) == nil {
		t.Errorf("an anonymous datagram passes as %s's", alice.cert.Name)
	}
}

func TestPadding(t *testing.T) {
	alice, bob := two(t)
	for _, attach := range []bool{false, true} {
		for n := range 280 {
			m := Message{Kind: KindList, From: alice.keys, Cert: alice.cert, AttachCert: attach, Now: time.Now(),
				Size: RequestSize, Body: note{Text: strings.Repeat("x", n)}}
			d, _, err := SealMessage(bob.keys.Seal.PublicKey(), m)
			if err != nil {
				t.Fatal(err)
			}
			// CBOR has no byte string of every encoded length: 2 may be missing.
			if len(d) > RequestSize || len(d) < RequestSize-2 {
				t.Fatalf("attached %v, text of %d: %d bytes, want %d", attach, n, len(d), RequestSize)
			}
		}
	}
	_, err := Seal(bob.keys.Seal.PublicKey(), KindList, alice.keys, nil, false, time.Now(), note{Text: strings.Repeat("x", MaxDatagram)})
	if err == nil {
		t.Error("sealed more than fits")
	}
}

func TestOpenRefuses(t *testing.T) {
	alice, bob := two(t)
	d, err := Seal(bob.keys.Seal.PublicKey(), KindHere, alice.keys, alice.cert, true, time.Now(), note{Text: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(alice.keys.Seal, d); !errors.Is(err, ErrDatagram) {
		t.Errorf("opened by another: %v", err)
	}
	for i := range d {
		bad := bytes.Clone(d)
		bad[i] ^= 0x10
		if _, err := Open(bob.keys.Seal, bad); !errors.Is(err, ErrDatagram) {
			t.Fatalf("opened with byte %d changed: %v", i, err)
		}
	}
	for n := range d {
		if _, err := Open(bob.keys.Seal, d[:n]); !errors.Is(err, ErrDatagram) {
			t.Fatalf("opened cut at %d: %v", n, err)
		}
	}
}

// TestForwarded checks that a receiver can't seal what it got to a third.
func TestForwarded(t *testing.T) {
	alice, bob := two(t)
	third, err := identity.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	m := Message{Kind: KindHere, From: alice.keys, Cert: alice.cert, Now: time.Now(), Body: note{}}
	in := inner{Time: m.Now.UnixMilli(), Nonce: make([]byte, nonceSize), Reply: alice.keys.Seal.PublicKey().Bytes(), Body: empty}
	hash := alice.cert.Hash()
	in.CertHash = hash[:]
	plain, err := in.sign(bob.keys.Seal.PublicKey(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		to *identity.Keys
		ok bool
	}{{bob.keys, true}, {third, false}} {
		o, err := parse(test.to.Seal.PublicKey(), KindHere, plain)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Verify(alice.cert); (err == nil) != test.ok {
			t.Errorf("signature verifies: %v, want %v", err, test.ok)
		}
	}
}

// golden is a frame as it must look on the wire for ever: 14 bytes, array of
// 6: request, id 7, "ping", code 0, no text, and the body ["hi"].
const golden = "0000000e" + "86" + "01" + "07" + "6470696e67" + "00" + "60" + "81626869"

func TestFrameGolden(t *testing.T) {
	body, err := Marshal(note{Text: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&Frame{Type: FrameRequest, ID: 7, Method: "ping", Body: body}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("frame\n%s, want\n%s", got, golden)
	}
	f, err := ReadFrame(bytes.NewReader(b))
	if err != nil || f.Type != FrameRequest || f.ID != 7 || f.Method != "ping" || !bytes.Equal(f.Body, body) {
		t.Errorf("read %+v, %v", f, err)
	}
}

// TestInnerGolden pins the plaintext of a datagram: time, nonce, no
// certificate, reply key, no answered nonce, body, no padding.
func TestInnerGolden(t *testing.T) {
	reply := make([]byte, 32)
	reply[0] = 9
	in := inner{Time: 1_700_000_000_123, Nonce: []byte("0123456789ab"), Reply: reply, Body: empty}
	b, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	want := "88" + "1b0000018bcfe5687b" + "4c303132333435363738396162" + "40" + "40" +
		"5820" + "09" + strings.Repeat("00", 31) + "40" + "f6" + "40"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("inner message\n%s, want\n%s", got, want)
	}
}

func TestReadFrameBounds(t *testing.T) {
	for _, in := range []string{"00000000", "ffffffff", "00011001"} {
		b, _ := hex.DecodeString(in)
		if _, err := ReadFrame(bytes.NewReader(b)); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := ReadFrame(bytes.NewReader([]byte{0, 0, 0, 5, 1})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: %v", err)
	}
	f := &Frame{Type: FrameNotice, Body: append([]byte{0x5a, 0, 1, 0x20, 0}, make([]byte, MaxFrame+1024)...)}
	if _, err := f.Append(nil); err == nil {
		t.Error("a frame above the bound was made")
	}
}

func TestStrict(t *testing.T) {
	for name, in := range map[string]string{
		"duplicate key":     "a2616101616102",
		"indefinite length": "9f01ff",
		"tag":               "c101",
		"bytes after":       "0101",
		"deep nesting":      strings.Repeat("81", 40) + "01",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := Unmarshal(b, &v); err == nil {
			t.Errorf("%s is taken: %v", name, v)
		}
	}
}

func FuzzFrame(f *testing.F) {
	b, _ := hex.DecodeString(golden[8:])
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil {
			return
		}
		again, err := frame.Append(nil)
		if err != nil {
			t.Fatalf("what was parsed can't be written: %v", err)
		}
		second, err := ReadFrame(bytes.NewReader(again))
		if err != nil || second.Type != frame.Type || second.ID != frame.ID || second.Method != frame.Method {
			t.Errorf("%+v became %+v, %v", frame, second, err)
		}
	})
}

func FuzzDatagram(f *testing.F) {
	alice, bob := two(f)
	d, err := Seal(bob.keys.Seal.PublicKey(), KindHere, alice.keys, alice.cert, true, time.Now(), note{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := Open(bob.keys.Seal, b); err == nil && !bytes.Equal(b, d) {
			t.Errorf("opened what nobody sealed: %+v", o)
		}
	})
}

// FuzzPlaintext fuzzes what a sender with our key can put inside.
func FuzzPlaintext(f *testing.F) {
	alice, bob := two(f)
	for _, cert := range []*identity.Certificate{nil, alice.cert} {
		in := inner{Nonce: make([]byte, nonceSize), Reply: alice.keys.Seal.PublicKey().Bytes(), Body: empty}
		if cert != nil {
			hash := cert.Hash()
			in.CertHash, in.Cert = hash[:], cert.DER
		}
		plain, err := in.sign(bob.keys.Seal.PublicKey(), Message{Kind: KindHere, From: alice.keys, Cert: cert})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(KindHere, plain)
	}
	f.Fuzz(func(t *testing.T, kind uint8, plain []byte) {
		o, err := parse(bob.keys.Seal.PublicKey(), kind, plain)
		if err != nil {
			return
		}
		if o.Reply == nil || o.Anonymous() && o.Cert != nil {
			t.Errorf("parsed %+v", o)
		}
	})
}
