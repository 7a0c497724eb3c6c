package freedom

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/stun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// latency is that of every datagram.
const latency = 5 * time.Millisecond

// world is an internet with one supernode, and users in it.
type world struct {
	t         *testing.T
	net       *memory.Internet
	authority *identity.Authority
	roots     identity.Roots
	profile   *profile.Profile
	supernode netip.AddrPort
}

// user is one end.
type user struct {
	service *Service
	cert    *identity.Certificate
	socket  *datagram.Socket
}

// inWorld runs f in a bubble. lost says which datagrams are.
func inWorld(t *testing.T, lost memory.Filter, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: memory.New(memory.Latency(latency)), supernode: netip.MustParseAddrPort("198.18.0.1:33033")}
		var err error
		if w.authority, err = identity.NewAuthority(time.Now, time.Hour); err != nil {
			t.Fatal(err)
		}
		public, err := w.authority.Public()
		if err != nil {
			t.Fatal(err)
		}
		if w.roots, err = public.Roots(); err != nil {
			t.Fatal(err)
		}
		if w.profile, err = profile.Named(profile.NEC2006); err != nil {
			t.Fatal(err)
		}
		w.net.SetFilter(lost)
		keys, err := identity.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		stun.Serve(w.listen(w.net.Host("sn1", w.supernode.Addr()), w.supernode, keys))
		f(w)
	})
}

func (w *world) listen(host network.Network, at netip.AddrPort, keys *identity.Keys) *datagram.Socket {
	s, err := datagram.Listen(context.Background(), host, at, datagram.Config{Keys: keys, Roots: w.roots, Profile: w.profile})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// user adds one behind a box, or on the internet where that is nil.
func (w *world) user(name, addr string, box *memory.NAT) *user {
	w.t.Helper()
	a := netip.MustParseAddr(addr)
	host := w.net.Host(name, a)
	if box != nil {
		host = w.net.Behind(box, name, a)
	}
	keys, err := identity.NewKeys()
	if err != nil {
		w.t.Fatal(err)
	}
	rsa, err := identity.NewRSA()
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := w.authority.Issue(identity.Subject{Name: name, Role: identity.RoleClient,
		Sign: keys.Public(), Seal: keys.Seal.PublicKey(), RSA: &rsa.PublicKey}, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	u := &user{cert: cert, socket: w.listen(host, netip.AddrPortFrom(a, 4000), keys)}
	u.socket.SetCertificate(cert)
	u.service = New(&directory.Client{
		Network: host, Profile: w.profile, Keys: keys, Cert: cert, Roots: w.roots, Socket: u.socket, Log: slog.New(slog.DiscardHandler),
		Home: func(context.Context) (directory.Supernode, *link.Conn, error) {
			return directory.Supernode{Name: "sn1", Addr: w.supernode}, nil, nil
		},
	})
	w.t.Cleanup(u.service.Close)
	return u
}

// meet punches between two users and returns where each sees the other.
func (w *world) meet(a, b *user) (ofA, ofB netip.AddrPort) {
	w.t.Helper()
	where := func(u *user) netip.AddrPort {
		seen, err := stun.Binding(w.t.Context(), u.socket, w.supernode)
		if err != nil {
			w.t.Fatal(err)
		}
		return seen
	}
	toA, toB := where(a), where(b)
	came := func(u *user) <-chan netip.AddrPort {
		c := make(chan netip.AddrPort, 16)
		u.socket.HandleOther(func(from netip.AddrPort, _ []byte) {
			select {
			case c <- from:
			default:
			}
		})
		return c
	}
	atA, atB := came(a), came(b)
	for range 3 { // whoever is heard is answered where it comes from
		a.socket.WriteTo([]byte{0xff}, toB)
		b.socket.WriteTo([]byte{0xff}, toA)
		time.Sleep(3 * latency)
		for _, end := range []struct {
			came <-chan netip.AddrPort
			to   *netip.AddrPort
		}{{atA, &toB}, {atB, &toA}} {
			select {
			case *end.to = <-end.came:
			default:
			}
		}
	}
	return toA, toB
}

// settle has both ends find out, a moment apart, and returns what each says.
func (w *world) settle(a, b *user, apart time.Duration) (said [2][2]bool, took time.Duration) {
	w.t.Helper()
	toA, toB := w.meet(a, b)
	session, began := directory.NewSession(), time.Now()
	var both, done sync.WaitGroup
	done.Add(2)
	for n, end := range []struct {
		u, peer *user
		to      netip.AddrPort
	}{{a, b, toB}, {b, a, toA}} {
		both.Go(func() {
			time.Sleep(time.Duration(n) * apart)
			ctx, cancel := context.WithTimeout(w.t.Context(), w.profile.PunchTimeout)
			defer cancel()
			e, err := end.u.service.Open(ctx, session, end.peer.cert, false)
			if err != nil {
				w.t.Error(err)
				done.Done()
				return
			}
			defer e.Close()
			said[n][0], said[n][1] = e.Settle(ctx, end.to)
			if d := time.Since(began) - time.Duration(n)*apart; n == 1 {
				took = d
			}
			done.Done()
			done.Wait() // the other end may still ask
		})
	}
	both.Wait()
	return said, took
}

// open opens an attempt at both ends.
func (w *world) open(a, b *user, aPublic bool) (ofA, ofB *End) {
	w.t.Helper()
	session := directory.NewSession()
	of := func(u, peer *user, public bool) *End {
		e, err := u.service.Open(w.t.Context(), session, peer.cert, public)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(e.Close)
		return e
	}
	return of(a, b, aPublic), of(b, a, false)
}

func nat(external string, mapping, filtering memory.Dependence) *memory.NAT {
	return &memory.NAT{External: netip.MustParseAddr(external), Mapping: mapping, Filtering: filtering}
}

const (
	ei  = memory.EndpointIndependent
	ad  = memory.AddressDependent
	apd = memory.AddressPortDependent
)

// Who is free is told by the filtering of each end's box alone, and both ends say
// the same.
func TestFree(t *testing.T) {
	for _, a := range []struct {
		mapping, filtering memory.Dependence
	}{{ei, ei}, {ei, ad}, {ei, apd}, {ad, ei}, {apd, ei}} {
		for _, b := range []struct {
			mapping, filtering memory.Dependence
		}{{ei, ei}, {ei, ad}, {ei, apd}} {
			if a.mapping != ei && b.filtering == apd {
				continue // no path works: what comes from alice comes from an unknown port
			}
			t.Run(fmt.Sprintf("%v x %v", a, b), func(t *testing.T) {
				inWorld(t, nil, func(w *world) {
					alice := w.user("alice", "10.0.0.2", nat("198.18.1.1", a.mapping, a.filtering))
					bob := w.user("bob", "10.0.1.2", nat("198.18.1.2", b.mapping, b.filtering))
					said, took := w.settle(alice, bob, 0)
					free := [2]bool{a.filtering == ei, b.filtering == ei}
					if said[0] != free || said[1] != [2]bool{free[1], free[0]} {
						t.Errorf("alice says %v, bob %v; want %v", said[0], said[1], free)
					}
					// A look at the supernode, then the addresses, and a no three times.
					if bound := 5*2*latency + 2*w.profile.CheckInterval; took > bound {
						t.Errorf("it took %v, want %v at most: a no needs no waiting", took, bound)
					}
				})
			})
		}
	}
}

// Two behind one box: within it they are free, around it its filtering is between
// them.
func TestOneBox(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		home := nat("198.18.1.1", ei, apd)
		alice, bob := w.user("alice", "10.0.0.2", home), w.user("bob", "10.0.0.3", home)
		if said, _ := w.settle(alice, bob, 0); said != [2][2]bool{} {
			t.Errorf("around the box they say %v, want that neither is free", said)
		}
		ctx := w.t.Context()
		a, b := w.open(alice, bob, false)
		var other sync.WaitGroup
		other.Go(func() { b.Settle(ctx, alice.socket.LocalAddr()) })
		if mine, theirs := a.Settle(ctx, bob.socket.LocalAddr()); !mine || !theirs {
			t.Errorf("within the box alice says %v and %v, want that both are free", mine, theirs)
		}
		other.Wait()
	})
}

// An end that is not as far as the other is waited for, and so is one that never
// comes, for as long as ctx lasts.
func TestLate(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		alice := w.user("alice", "10.0.0.2", nat("198.18.1.1", ei, ei))
		bob := w.user("bob", "10.0.1.2", nat("198.18.1.2", ei, apd))
		if said, _ := w.settle(alice, bob, 300*time.Millisecond); said != [2][2]bool{{true, false}, {false, true}} {
			t.Errorf("they say %v", said)
		}
		_, toBob := w.meet(alice, bob)
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		e, err := alice.service.Open(ctx, directory.NewSession(), bob.cert, false)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if mine, theirs := e.Settle(ctx, toBob); mine || theirs || time.Since(began) > time.Second {
			t.Errorf("of one who never comes: %v, %v after %v", mine, theirs, time.Since(began))
		}
	})
}

// A lost probe is not taken for one that a box has stopped.
func TestLostProbes(t *testing.T) {
	probes := 0
	lost := func(_ string, from, to netip.AddrPort) bool {
		// Probes alone go from a user's first socket to its peer's second.
		if from.Addr().Is4() && from.Port() == 4000 && to.Addr() == netip.MustParseAddr("198.18.2.2") && to.Port() != 4000 {
			probes++
			return probes >= questions
		}
		return true
	}
	inWorld(t, lost, func(w *world) {
		alice, bob := w.user("alice", "198.18.2.1", nil), w.user("bob", "198.18.2.2", nil)
		if said, _ := w.settle(alice, bob, 0); said != [2][2]bool{{true, true}, {true, true}} || probes != questions {
			t.Errorf("%v after %d probes", said, probes)
		}
	})
}

// A public end opens no socket, and says of itself what is known.
func TestPublic(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		alice, bob := w.user("alice", "198.18.2.1", nil), w.user("bob", "10.0.1.2", nat("198.18.1.2", ei, apd))
		toAlice, toBob := w.meet(alice, bob)
		ctx := w.t.Context()
		a, b := w.open(alice, bob, true)
		if a.socket != nil {
			t.Error("a public end has a quiet endpoint")
		}
		var other sync.WaitGroup
		other.Go(func() {
			if mine, theirs := b.Settle(ctx, toAlice); mine || !theirs {
				t.Errorf("bob says %v, %v", mine, theirs)
			}
		})
		if mine, theirs := a.Settle(ctx, toBob); !mine || theirs {
			t.Errorf("alice says %v, %v", mine, theirs)
		}
		other.Wait()
	})
}

// Nobody else can speak for an end: neither to its quiet endpoint nor of a session.
func TestImpostor(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		alice, bob, mallory := w.user("alice", "198.18.2.1", nil), w.user("bob", "198.18.2.2", nil), w.user("mallory", "198.18.2.3", nil)
		ctx, session := w.t.Context(), directory.NewSession()
		e, err := alice.service.Open(ctx, session, bob.cert, false)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		e.look(ctx)
		send := func(u *user, m probe) {
			e.socket.Know(u.cert) // as if it had been seen in another attempt
			if err := u.socket.Send(e.local, alice.cert.Seal, directory.KindProbe, m); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * latency)
		}
		reached := func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.reached) > 0
		}
		send(mallory, probe{Session: session, To: e.local})
		send(bob, probe{Session: directory.NewSession(), To: e.local})
		send(bob, probe{Session: session, To: netip.MustParseAddrPort("198.18.2.1:9")})
		if reached() {
			t.Error("a probe of somebody else's, of another session or to another place counts")
		}
		var a answer
		alice.socket.Know(mallory.cert)
		if err := mallory.socket.Request(ctx, alice.socket.LocalAddr(), alice.cert.Seal, directory.KindQuestion,
			question{Session: session, To: e.local, Last: true}, &a); err != nil || a.Ready {
			t.Errorf("mallory is answered %+v, %v", a, err)
		}
		if len(e.known) > 0 {
			t.Error("mallory has settled it")
		}
		send(bob, probe{Session: session, To: e.local})
		if !reached() {
			t.Error("bob's own probe doesn't count")
		}
	})
}

// Attempts are bounded, and one is not begun twice.
func TestBounds(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		alice, bob := w.user("alice", "198.18.2.1", nil), w.user("bob", "198.18.2.2", nil)
		session := directory.NewSession()
		for n := range maxEnds {
			e, err := alice.service.Open(w.t.Context(), session, bob.cert, n%2 == 0)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if _, err := alice.service.Open(w.t.Context(), session, bob.cert, false); err == nil {
				t.Fatal("one attempt is begun twice")
			}
			session = directory.NewSession()
		}
		if _, err := alice.service.Open(w.t.Context(), session, bob.cert, false); err == nil {
			t.Errorf("more than %d attempts at once", maxEnds)
		}
	})
}
