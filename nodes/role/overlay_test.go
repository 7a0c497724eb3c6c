package role

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/network"
	"gauntlet/nodes/network/memory"
)

// overlay is a whole overlay in one process, on an internet in memory, driven
// as the lab drives one.
type overlay struct {
	t     *testing.T
	net   *memory.Internet
	names []string
	nodes map[string]*testNode
	log   *safeBuffer
	wrap  func(network.Network) network.Network // around each host's; nil: nothing
	boxes map[string]*memory.NAT                // of clients behind one
	set   map[string]string                     // settings of nodes, JSON
	added func(Node)                            // sees every node that is made; nil: nobody does
}

type testNode struct {
	Node
	name, role string
	addr       netip.Addr
	functions  []string
}

// safeBuffer keeps the nodes' log for a failed test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const testPassword = "correct horse"

// newOverlay starts a login server, an update server, supernodes and clients.
// It must run in a synctest bubble, and close must be called.
func newOverlay(t *testing.T, supernodes int, clients ...string) *overlay {
	return newOverlayOf(t, "nec2006", supernodes, clients...)
}

func newOverlayOf(t *testing.T, profile string, supernodes int, clients ...string) *overlay {
	t.Helper()
	return newOverlayWrapped(t, profile, nil, supernodes, clients...)
}

func newOverlayWrapped(t *testing.T, profile string, wrap func(network.Network) network.Network, supernodes int, clients ...string) *overlay {
	t.Helper()
	o := &overlay{t: t, net: memory.New(memory.Latency(5 * time.Millisecond)), wrap: wrap}
	o.build(profile, supernodes, clients...)
	return o
}

// build starts the nodes of an overlay that says where they are.
func (o *overlay) build(profile string, supernodes int, clients ...string) {
	t := o.t
	t.Helper()
	o.nodes, o.log = map[string]*testNode{}, &safeBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("log of the nodes:\n" + o.log.String())
		}
	})
	o.add("login", RoleLogin)
	o.add("update", RoleUpdate)
	for i := range supernodes {
		o.add(fmt.Sprintf("sn%d", i+1), RoleSupernode)
	}
	for _, name := range clients {
		o.add(name, RoleClient)
	}
	o.start(profile)
}

func (o *overlay) add(name, role string) {
	addr := netip.AddrFrom4([4]byte{198, 18, 0, byte(len(o.names) + 10)})
	log := slog.New(slog.NewTextHandler(o.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	var host network.Network
	if box := o.boxes[name]; box != nil {
		addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(len(o.names) + 10)})
		host = o.net.Behind(box, name, addr)
	} else {
		host = o.net.Host(name, addr)
	}
	if o.wrap != nil {
		host = o.wrap(host)
	}
	n, err := New(context.Background(), role, host, log)
	if err != nil {
		o.t.Fatal(err)
	}
	if o.added != nil {
		o.added(n)
	}
	o.names = append(o.names, name)
	o.nodes[name] = &testNode{Node: n, name: name, role: role, addr: addr}
}

// start prepares and starts all nodes, all at once as the lab does.
func (o *overlay) start(profile string) {
	o.t.Helper()
	var start control.StartParams
	accounts := map[string]bool{}
	for _, name := range o.names {
		n := o.nodes[name]
		var r control.PrepareResult
		o.must(name, control.MethodPrepare, control.PrepareParams{Name: name, Role: n.role,
			Addresses: []string{n.addr.String()}, Dir: o.t.TempDir(), Profile: profile,
			Settings: json.RawMessage(o.set[name])}, &r)
		accounts[name] = r.Accounts
		n.functions = r.Functions
		start.Peers = append(start.Peers, control.Peer{Name: name, Role: n.role,
			Addresses: []string{n.addr.String()}, Public: r.Public})
		if n.role == RoleClient {
			start.Accounts = append(start.Accounts, control.Account{User: name, Password: testPassword})
		}
	}
	var wg sync.WaitGroup
	for _, name := range o.names {
		p := start
		if !accounts[name] {
			p.Accounts = nil
		}
		wg.Go(func() {
			if err := o.call(name, control.MethodStart, p, nil); err != nil {
				o.t.Errorf("start %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if o.t.Failed() {
		o.close()
		o.t.FailNow()
	}
}

// call calls a method through JSON, as over the seam.
func (o *overlay) call(name, method string, params, result any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	m := o.nodes[name].Methods()[method]
	if m == nil {
		return fmt.Errorf("%s has no method %s", name, method)
	}
	r, err := m(context.Background(), raw)
	if err != nil || result == nil {
		return err
	}
	if raw, err = json.Marshal(r); err != nil {
		return err
	}
	return json.Unmarshal(raw, result)
}

func (o *overlay) must(name, method string, params, result any) {
	o.t.Helper()
	if err := o.call(name, method, params, result); err != nil {
		o.t.Fatalf("%s of %s: %v", method, name, err)
	}
}

func (o *overlay) client(name string) *client { return o.nodes[name].Node.(*client) }

func (o *overlay) supernode(name string) *supernode { return o.nodes[name].Node.(*supernode) }

// login logs a client in with a payload of 40 KiB.
func (o *overlay) login(name string) (*control.LoginResult, error) {
	r := new(control.LoginResult)
	err := o.call(name, control.MethodLogin, control.LoginParams{User: name, Password: testPassword,
		Payload: bytes.Repeat([]byte{7}, 40<<10)}, r)
	return r, err
}

// close stops all nodes, clients first.
func (o *overlay) close() {
	for _, name := range slices.Backward(o.names) {
		if err := o.nodes[name].Close(); err != nil {
			o.t.Errorf("stop %s: %v", name, err)
		}
	}
	// memberlist's probes outlive it by their timeout, and the bubble's clock
	// stops with the test: let them run out.
	time.Sleep(probeRest)
}

// probeRest is longer than any probe of memberlist takes: its interval of 1 s
// times its greatest awareness of 8.
const probeRest = 10 * time.Second
