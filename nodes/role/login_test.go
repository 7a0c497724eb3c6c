package role

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gauntlet/nodes/control"
	"gauntlet/nodes/membership"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blockUDP makes a filter that stops all datagrams of one address.
func blockUDP(addr netip.Addr) func(string, netip.AddrPort, netip.AddrPort) bool {
	return func(transport string, from, to netip.AddrPort) bool {
		return transport != "udp" || from.Addr() != addr && to.Addr() != addr
	}
}

// With more supernodes than an answer over UDP lists, those that were asked and
// aren't in it don't try who gets in: a client's box lets these in.
func TestLoginWithManySupernodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 16 {
			names = append(names, fmt.Sprintf("c%d", i+1))
		}
		o := newOverlayOf(t, "baset2004", 2*maxListed, names...) // it asks four at once
		defer o.close()
		var all []netip.Addr
		for _, name := range names {
			all = append(all, o.nodes[name].addr)
		}
		o.net.SetFilter(portRestricted(all...))
		for _, name := range names {
			r, err := o.login(name)
			if err != nil {
				t.Fatal(err)
			}
			if r.Middlebox.Filtering != "address-and-port-dependent" {
				t.Errorf("%s finds the filtering of its box %q", name, r.Middlebox.Filtering)
			}
			if reached := o.client(name).current().reached(); reached.udp || reached.tcp {
				t.Errorf("%s takes itself for reached: %+v", name, reached)
			}
		}
	})
}

func TestLogin(t *testing.T) {
	began := cpuTime(t)
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "alice", "carol")
		defer o.close()
		o.net.SetFilter(blockUDP(o.nodes["carol"].addr))

		start := time.Now()
		alice, err := o.login("alice")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("a public client logged in after %s, want less than a second", took)
		}
		direct := &control.Path{Path: "direct", Legs: []control.Leg{{Transport: "tcp"}}}
		want := &control.LoginResult{Path: direct, Middlebox: &control.Middlebox{UDP: true, Mapping: "none",
			Filtering: "endpoint-independent"}}
		if d := cmp.Diff(want, alice); d != "" {
			t.Errorf("login of a public client (-want +got):\n%s", d)
		}
		if r := o.client("alice").current().reached(); !r.udp || !r.tcp {
			t.Errorf("probe of a public client: %+v, want both", r)
		}

		start = time.Now()
		carol, err := o.login("carol")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2500*time.Millisecond {
			t.Errorf("a client without UDP logged in after %s, want less than 2.5 s", took)
		}
		want = &control.LoginResult{Path: direct, Middlebox: &control.Middlebox{UDP: false}}
		if d := cmp.Diff(want, carol); d != "" {
			t.Errorf("login without UDP (-want +got):\n%s", d)
		}
		for _, name := range []string{"alice", "carol"} {
			checkHome(t, o, name)
		}
	})
	took := cpuTime(t) - began
	t.Logf("14 nodes and 2 logins: %s of CPU", took)
	if took > maxCPU {
		t.Errorf("14 nodes and 2 logins took %s of CPU, want less than %s", took, maxCPU)
	}
}

// maxCPU is ten times what an overlay of 12 supernodes and two logins takes,
// so that it holds under the race detector too.
const maxCPU = 10 * time.Second

// cpuTime is what this process has used of the processor.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// checkHome checks that a user is at exactly one supernode, and that this one
// isn't responsible for the user's record.
func checkHome(t *testing.T, o *overlay, name string) {
	t.Helper()
	var at []string
	var all []membership.Supernode
	for _, sn := range o.names {
		if n, ok := o.nodes[sn].Node.(*supernode); ok {
			all = n.members.Supernodes()
			if n.sessions.of(name) != nil {
				at = append(at, sn)
			}
		}
	}
	if len(at) != 1 {
		t.Fatalf("%s is at the supernodes %v, want one", name, at)
	}
	own := membership.IDOf(o.supernode(at[0]).cert)
	if membership.Contains(membership.Responsible(all, name, 3), own) {
		t.Errorf("%s keeps the record of %s and is its own supernode", at[0], name)
	}
}

func TestLoginRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "dave")
		defer o.close()
		server, dave := o.nodes["login"].addr, o.nodes["dave"].addr
		o.net.SetFilter(func(_ string, from, to netip.AddrPort) bool {
			return from.Addr() != dave || to.Addr() != server
		})
		r, err := o.login("dave")
		if err != nil {
			t.Fatal(err)
		}
		if r.Path.Path != "relayed" || r.Path.Hops != 1 || r.Path.Relays != 1 {
			t.Errorf("path %+v, want one relay", r.Path)
		}
		if !strings.Contains(o.log.String(), "login relayed") {
			t.Error("no supernode says that it relayed a login")
		}
	})
}

func TestLoginRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 4, "alice")
		defer o.close()
		for _, user := range []string{"alice", "nobody"} {
			err := o.call("alice", control.MethodLogin, control.LoginParams{User: user, Password: "wrong"}, nil)
			if err == nil || !strings.Contains(err.Error(), "wrong user name or password") {
				t.Errorf("login of %s with a wrong password: %v", user, err)
			}
		}
		if _, err := o.login("alice"); err != nil {
			t.Errorf("login after a wrong password: %v", err)
		}
		if _, err := o.login("alice"); err == nil {
			t.Error("a second login of the same client is taken")
		}
	})
}

func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 6, "alice")
		defer o.close()
		if _, err := o.login("alice"); err != nil {
			t.Fatal(err)
		}
		u := o.client("alice").current()
		first, err := u.home(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range o.names {
			if n, ok := o.nodes[name].Node.(*supernode); ok && n.own() == first.node.Addr {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		<-first.link.Done()
		second, err := u.home(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if second.node.Addr == first.node.Addr {
			t.Errorf("still at the dead supernode %s", first.node.Addr)
		}
	})
}
