package datagram

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	kindEcho uint8 = 40
	kindNote uint8 = 41
)

type text struct {
	_    struct{} `cbor:",toarray"`
	Text string
}

var (
	addrA = netip.MustParseAddrPort("198.18.0.1:1000")
	addrB = netip.MustParseAddrPort("198.18.0.2:2000")
)

// pair is two sockets with certificates.
type pair struct {
	net   *memory.Internet
	a, b  *Socket
	keysB *identity.Keys
	certA *identity.Certificate
}

func inBubble(t *testing.T, f func(t *testing.T, p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := identity.NewAuthority(time.Now, time.Hour)
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
		prof, err := profile.Named("")
		if err != nil {
			t.Fatal(err)
		}
		p := &pair{net: memory.New(memory.Latency(time.Millisecond))}
		open := func(at netip.AddrPort) (*Socket, *identity.Keys, *identity.Certificate) {
			keys, err := identity.NewKeys()
			if err != nil {
				t.Fatal(err)
			}
			cert, err := authority.Issue(identity.Subject{Name: "sn", Role: identity.RoleSupernode, Addr: at,
				Sign: keys.Public(), Seal: keys.Seal.PublicKey()}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Listen(t.Context(), p.net.Host("h", at.Addr()), at, Config{Keys: keys, Roots: roots, Profile: prof})
			if err != nil {
				t.Fatal(err)
			}
			return s, keys, cert
		}
		p.a, _, p.certA = open(addrA)
		p.b, p.keysB, _ = open(addrB)
		f(t, p)
		p.a.Close()
		p.b.Close()
	})
}

// echoes sets an echo handler and counts how often it runs.
func (p *pair) echoes() *atomic.Int32 {
	count := new(atomic.Int32)
	p.b.Handle(kindEcho, func(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
		count.Add(1)
		var m text
		if o.Decode(&m) != nil {
			return nil
		}
		return m
	})
	return count
}

func TestRequestSurvivesLoss(t *testing.T) {
	for _, lost := range []struct {
		name string
		from netip.AddrPort
	}{{"requests", addrA}, {"answers", addrB}} {
		t.Run(lost.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *pair) {
				handled := p.echoes()
				var seen atomic.Int32
				p.net.SetFilter(func(_ string, from, _ netip.AddrPort) bool {
					return from != lost.from || seen.Add(1) > 2 // the first two of these
				})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				var got text
				if err := p.a.Request(ctx, addrB, p.keysB.Seal.PublicKey(), kindEcho, text{Text: "hi"}, &got); err != nil || got.Text != "hi" {
					t.Fatalf("%+v, %v", got, err)
				}
				if n := handled.Load(); n != 1 {
					t.Errorf("handled %d times, want once", n)
				}
			})
		})
	}
}

func TestRequestUnanswered(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := p.a.Request(ctx, addrB, p.keysB.Seal.PublicKey(), kindEcho, text{}, nil); err == nil {
			t.Error("answered by nobody")
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("gave up after %s", d)
		}
	})
}

func TestCertificates(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		got := make(chan *identity.Certificate, 4)
		p.b.Handle(kindNote, func(_ context.Context, _ netip.AddrPort, o *wire.Opened) any {
			got <- o.Cert
			return nil
		})
		key := p.keysB.Seal.PublicKey()
		arrives := func() (c *identity.Certificate, ok bool) {
			select {
			case c = <-got:
				return c, true
			case <-time.After(time.Second):
				return nil, false
			}
		}
		p.a.Send(addrB, key, kindNote, text{})
		if c, ok := arrives(); !ok || c != nil {
			t.Errorf("anonymous: %v, %v", c, ok)
		}
		p.a.SetCertificate(p.certA)
		p.a.Send(addrB, key, kindNote, text{})
		if _, ok := arrives(); ok {
			t.Error("taken from somebody whose certificate is not known")
		}
		p.a.Introduce(addrB, key, kindNote, text{})
		if c, ok := arrives(); !ok || c == nil || c.Hash() != p.certA.Hash() {
			t.Errorf("introduced: %v, %v", c, ok)
		}
		p.a.Send(addrB, key, kindNote, text{})
		if c, ok := arrives(); !ok || c == nil {
			t.Errorf("known by its hash: %v, %v", c, ok)
		}
		time.Sleep(2 * time.Hour) // the bubble's clock: the certificate runs out
		p.a.Introduce(addrB, key, kindNote, text{})
		if _, ok := arrives(); ok {
			t.Error("taken with a certificate that has run out")
		}
	})
}

func TestReplayOnTheWire(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		handled := p.echoes()
		packet, _, err := wire.SealMessage(p.keysB.Seal.PublicKey(), p.a.message(kindEcho, text{Text: "x"}, false, wire.RequestSize))
		if err != nil {
			t.Fatal(err)
		}
		third, err := p.net.Host("c", netip.MustParseAddr("198.18.0.3")).ListenPacket(t.Context(), netip.MustParseAddrPort("198.18.0.3:1"))
		if err != nil {
			t.Fatal(err)
		}
		defer third.Close()
		p.a.WriteTo(packet, addrB)
		time.Sleep(10 * time.Millisecond)
		// A copy from elsewhere is not answered: who sends it would choose where
		// the answer goes.
		conn := third.(interface {
			WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		})
		conn.WriteToUDPAddrPort(packet, addrB)
		third.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := third.ReadFrom(make([]byte, 2000)); err == nil {
			t.Errorf("a copy from elsewhere is answered with %d bytes", n)
		}
		time.Sleep(time.Hour)
		p.a.WriteTo(packet, addrB)
		time.Sleep(time.Second)
		if n := handled.Load(); n != 1 {
			t.Errorf("handled %d times, want once", n)
		}
	})
}

func TestAnswerNotLargerThanRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.b.Handle(kindEcho, func(context.Context, netip.AddrPort, *wire.Opened) any {
			return text{Text: string(bytes.Repeat([]byte("x"), 1200))}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.a.Request(ctx, addrB, p.keysB.Seal.PublicKey(), kindEcho, text{}, nil); err == nil {
			t.Error("answered with more than was asked")
		}
	})
}

func TestMedia(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		var mu sync.Mutex
		var got []string
		cancel := p.b.HandleMedia(addrA, func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(b))
		})
		p.a.WriteTo([]byte{0x80, 'o', 'n', 'e'}, addrB)
		time.Sleep(time.Second)
		cancel()
		p.a.WriteTo([]byte{0x80, 't', 'w', 'o'}, addrB)
		p.a.WriteTo([]byte{0x40, 'n', 'o'}, addrB)
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 1 || got[0] != "\x80one" {
			t.Errorf("media %q", got)
		}
	})
}

func TestRateLimit(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(10, 5)
	a, b := addrA.Addr(), addrB.Addr()
	passed := 0
	for range 20 {
		if l.allow(a, now) {
			passed++
		}
	}
	if passed != 5 || !l.allow(b, now) {
		t.Errorf("%d of a burst of 5 passed, another source: %v", passed, l.allow(b, now))
	}
	if !l.allow(a, now.Add(100*time.Millisecond)) || l.allow(a, now.Add(100*time.Millisecond)) {
		t.Error("after a tenth of a second not exactly one more passed")
	}
}

func TestReplayWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newReplay(time.Minute)
	nonce := func(i int) (n [12]byte) {
		n[0], n[1], n[2] = byte(i), byte(i>>8), byte(i>>16)
		return n
	}
	for name, sent := range map[string]time.Time{"old": now.Add(-61 * time.Second), "future": now.Add(61 * time.Second)} {
		if fresh, _ := r.check(nonce(1), sent, addrA, now); fresh {
			t.Errorf("%s datagram is taken", name)
		}
	}
	if fresh, _ := r.check(nonce(1), now, addrA, now); !fresh {
		t.Fatal("fresh datagram refused")
	}
	r.store(nonce(1), []byte("answer"))
	if fresh, answer := r.check(nonce(1), now, addrA, now.Add(time.Second)); fresh || string(answer) != "answer" {
		t.Errorf("copy: fresh %v, answer %q", fresh, answer)
	}
	if _, answer := r.check(nonce(1), now, addrB, now.Add(time.Second)); answer != nil {
		t.Errorf("copy from elsewhere: answer %q", answer)
	}
	if _, answer := r.check(nonce(1), now, addrA, now.Add(storedFor+2*time.Second)); answer != nil {
		t.Errorf("late copy: answer %q", answer)
	}
	// What is forgotten for want of room is not taken again.
	later := now.Add(10 * time.Second)
	for i := range maxNonces + 10 {
		r.check(nonce(i+2), later, addrA, later)
	}
	if len(r.byKey) > maxNonces {
		t.Errorf("%d nonces are kept, want at most %d", len(r.byKey), maxNonces)
	}
	if fresh, _ := r.check(nonce(1), now, addrA, later); fresh {
		t.Error("a forgotten datagram is taken again")
	}
}

func BenchmarkOpen(b *testing.B) {
	keys, err := identity.NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	d, err := wire.Seal(keys.Seal.PublicKey(), kindEcho, keys, nil, false, time.Now(), text{Text: "hello"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := wire.Open(keys.Seal, d); err != nil {
			b.Fatal(err)
		}
	}
}
