package role

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/hostcache"
	"gauntlet/nodes/network/memory"
)

// TestDrive drives a node over pipes, line by line, as the lab does.
func TestDrive(t *testing.T) {
	host := memory.New().Host("update", netip.MustParseAddr("198.18.0.1"))
	n, err := New(t.Context(), RoleUpdate, host, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	in, toNode := io.Pipe()
	fromNode, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Drive(context.Background(), n, in, out) }()
	answers := bufio.NewReader(fromNode)
	ask := func(line, want string) {
		t.Helper()
		if _, err := io.WriteString(toNode, line+"\n"); err != nil {
			t.Fatal(err)
		}
		got, err := answers.ReadString('\n')
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%s\nis answered %s, %v; want %s", line, got, err, want)
		}
	}
	dir, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ask(`{"jsonrpc":"2.0","id":1,"method":"start","params":{}}`, "prepare comes first")
	ask(`{"jsonrpc":"2.0","id":2,"method":"prepare","params":{"name":"update","role":"update","profile":"who","dir":`+string(dir)+`}}`, "unknown profile")
	ask(`{"jsonrpc":"2.0","id":3,"method":"prepare","params":{"name":"update","role":"update","dir":`+string(dir)+`}}`, "198.18.0.1:80")
	ask(`{"jsonrpc":"2.0","id":4,"method":"search","params":{}}`, "-32601")
	ask(`{"jsonrpc":"2.0","id":5,"method":"start","params":{"peers":[]}}`, `"result"`)
	// A driver that comes back is answered as the one before it.
	ask(`{"jsonrpc":"2.0","id":7,"method":"prepare","params":{"name":"update","role":"update","dir":`+string(dir)+`}}`, "198.18.0.1:80")
	ask(`{"jsonrpc":"2.0","id":8,"method":"start","params":{"peers":[]}}`, `"result"`)
	ask(`{"jsonrpc":"2.0","id":9,"method":"start","params":{"peers":[{"name":"a"}]}}`, "called twice")
	ask(`{"jsonrpc":"2.0","id":6,"method":"stop","params":{}}`, `"result"`)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after stop: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the node is still there after stop")
	}
	fromNode.Close()
}

func TestUnknownRole(t *testing.T) {
	if _, err := New(t.Context(), "king", memory.New().Host("x", netip.MustParseAddr("198.18.0.1")), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("there is a role called king")
	}
}

// TestVoidHostCache is claim L3 of papers.md: without supernodes no login.
func TestVoidHostCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 0, "alice")
		defer o.close()
		if _, err := o.login("alice"); err == nil || !strings.Contains(err.Error(), "host cache is void") {
			t.Errorf("login without supernodes: %v", err)
		}
	})
}

// TestHostCacheIsKept checks that login leaves the supernodes and the
// middlebox in shared.xml.
func TestHostCacheIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 5, "alice")
		defer o.close()
		if _, err := o.login("alice"); err != nil {
			t.Fatal(err)
		}
		dir := o.client("alice").params.Dir
		c, err := hostcache.Load(dir, 200)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Entries()); n != 5 || c.Runs != 1 {
			t.Errorf("%d supernodes after %d runs, want 5 after 1", n, c.Runs)
		}
		for _, e := range c.Entries() {
			if e.Supernode.ID == ([16]byte{}) || e.LastSeen.IsZero() || !e.Default {
				t.Errorf("entry %+v", e)
			}
		}
		if m := c.Middlebox; !m.UDP || m.Mapping != "none" || m.Filtering != "endpoint-independent" || m.Tested.IsZero() {
			t.Errorf("middlebox %+v", m)
		}
		if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
			t.Errorf("files %v, %v", files, err)
		}
	})
}

// TestDamagedHostCache checks that a client with a damaged file begins with
// the default supernodes.
func TestDamagedHostCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &overlay{t: t, net: memory.New(), nodes: map[string]*testNode{}, log: &safeBuffer{}}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, hostcache.FileName), []byte("<shared"), 0o600); err != nil {
			t.Fatal(err)
		}
		o.add("login", RoleLogin)
		o.add("alice", RoleClient)
		defer o.close()
		var login control.PrepareResult
		o.must("login", control.MethodPrepare, control.PrepareParams{Name: "login", Dir: t.TempDir()}, &login)
		o.must("alice", control.MethodPrepare, control.PrepareParams{Name: "alice", Dir: dir}, nil)
		o.must("alice", control.MethodStart, control.StartParams{Peers: []control.Peer{{Name: "login", Role: RoleLogin, Public: login.Public}}}, nil)
		if !strings.Contains(o.log.String(), "host cache not read") {
			t.Error("nothing is said about the damaged file")
		}
	})
}

// TestTCPGathering is the row P-L1: without UDP a client opens several links,
// and keeps one.
func TestTCPGathering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 12, "carol")
		defer o.close()
		carol := o.nodes["carol"].addr
		opened := map[netip.Addr]bool{}
		var guard = make(chan struct{}, 1)
		block := blockUDP(carol)
		o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
			if transport == "tcp" && from.Addr() == carol && to.Port() == overlayPort {
				guard <- struct{}{}
				opened[to.Addr()] = true
				<-guard
			}
			return block(transport, from, to)
		})
		if _, err := o.login("carol"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		guard <- struct{}{}
		delete(opened, o.nodes["login"].addr)
		if len(opened) < 3 {
			t.Errorf("links to %d supernodes were opened, want at least 3", len(opened))
		}
		<-guard
		held := 0
		time.Sleep(time.Second) // the bubble's clock: the others are torn down
		for _, name := range o.names {
			if n, ok := o.nodes[name].Node.(*supernode); ok {
				n.sessions.mu.Lock()
				held += n.sessions.byAddr[carol]
				n.sessions.mu.Unlock()
			}
		}
		if held != 1 {
			t.Errorf("%d links are held, want 1", held)
		}
	})
}

// TestFallbackPorts checks that a supernode is reached at 80 or 443 where the
// firewall lets nothing else out.
func TestFallbackPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlay(t, 6, "wendy")
		defer o.close()
		wendy := o.nodes["wendy"].addr
		o.net.SetFilter(func(transport string, from, to netip.AddrPort) bool {
			web := func(p uint16) bool { return p == 443 }
			return from.Addr() != wendy && to.Addr() != wendy ||
				transport == "tcp" && (from.Addr() == wendy && web(to.Port()) || to.Addr() == wendy && web(from.Port()))
		})
		r, err := o.login("wendy")
		if err != nil {
			t.Fatal(err)
		}
		if r.Path.Path != "relayed" || r.Middlebox.UDP {
			t.Errorf("login through 443 only: %+v, %+v", r.Path, r.Middlebox)
		}
	})
}

// TestPublishedTimers logs in with the numbers of 2004.
func TestPublishedTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOverlayOf(t, "baset2004", 8, "alice", "carol")
		defer o.close()
		o.net.SetFilter(blockUDP(o.nodes["carol"].addr))
		took := map[string]time.Duration{}
		for _, name := range []string{"alice", "carol"} {
			start := time.Now()
			if _, err := o.login(name); err != nil {
				t.Fatal(err)
			}
			took[name] = time.Since(start)
		}
		// L2 and L7: about 5 s of waiting for datagrams a round, then TCP.
		if took["alice"] > 7*time.Second || took["carol"] < 10*time.Second {
			t.Errorf("public client %s, without UDP %s", took["alice"], took["carol"])
		}
	})
}
