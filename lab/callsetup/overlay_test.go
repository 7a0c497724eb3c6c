package callsetup

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gauntlet/lab/capture"
	"gauntlet/lab/evidence"
	"gauntlet/lab/internet"
	"gauntlet/lab/process"
	"gauntlet/nodes/control"
)

const (
	// supernodes is how many the overlay needs for relays outside the users' own
	// and responsible ones.
	supernodes = 12
	// mediaSize is a media packet of the 2004 load, bytes of UDP payload
	// (reference/papers.md section 2.1).
	mediaSize = 67
	// rtpVersion is in the first two bits of RTP, RFC 3550 section 5.1; STUN has
	// zeros there.
	rtpVersion = 2
	quiet      = 150 * time.Millisecond // without a new flow, the overlay is at rest
)

// overlayServers are the hosts of the overlay's servers, by name and role.
func overlayServers() (names []string, roles map[string]string) {
	roles = map[string]string{"login": "login", "update": "update", Caller: "client", Callee: "client"}
	names = []string{"login", "update"}
	for n := range supernodes {
		name := fmt.Sprintf("sn%d", n+1)
		names, roles[name] = append(names, name), "supernode"
	}
	return names, roles
}

// overlay is the reference overlay in service, both clients logged in, and all
// that comes to the clients' hosts is recorded.
type overlay struct {
	internet *internet.Internet
	nodes    map[string]*process.Node
	dir      string
	recorder *capture.Recorder
	losses   func() (evidence.Losses, error) // ends the recording
	calls    int
}

// startOverlay puts the overlay in service on an internet with its servers.
func startOverlay(t testing.TB, i *internet.Internet) *overlay {
	t.Helper()
	o := &overlay{internet: i, nodes: map[string]*process.Node{}, dir: t.TempDir()}
	program := filepath.Join(o.dir, "gauntlet")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "gauntlet/cmd/gauntlet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gauntlet: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("overlay not in service within %v", limit))
	defer cancel()
	_, roles := overlayServers()
	t.Cleanup(o.stop)
	for name, role := range roles {
		if err := o.start(program, name, role); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.serve(ctx, roles); err != nil {
		t.Fatal(err)
	}
	config := capture.Config{Dir: filepath.Join(o.dir, "capture")}
	if err := os.Mkdir(config.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Caller, Callee} {
		config.Taps = append(config.Taps, capture.Tap{Name: name, Namespace: i.Namespace(name), Interface: i.Interfaces(name)[0]})
	}
	var err error
	if o.recorder, err = capture.Start(ctx, config); err != nil {
		t.Fatal(err)
	}
	o.losses = sync.OnceValues(o.recorder.Close)
	t.Cleanup(func() {
		if _, err := o.losses(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// start starts one node as a run of the lab does: with no_new_privs, few
// capabilities, and behind the lab in priority.
func (o *overlay) start(program, name, role string) error {
	dir := filepath.Join(o.dir, name)
	c := process.Config{
		Name: name, Argv: []string{program, "node", role}, Dir: dir, Log: o.log(name),
		Env:       []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir},
		Namespace: o.internet.Namespace(name),
	}
	if role != "client" {
		c.Privileges.Keep = []int{unix.CAP_NET_BIND_SERVICE} // servers listen on 80 and 443
	}
	node, err := process.StartNode(c)
	if err == nil {
		o.nodes[name] = node
	}
	return err
}

func (o *overlay) log(name string) string { return filepath.Join(o.dir, name+".log") }

// serve has all nodes prepare and start, and the clients log in.
func (o *overlay) serve(ctx context.Context, roles map[string]string) error {
	const password = "a password"
	var preparing errgroup.Group
	peers := make([]control.Peer, len(roles))
	accounts := make([]bool, len(roles))
	n := 0
	for name, role := range roles {
		h, _ := o.internet.Plan.Host(name)
		address := []string{h.Addrs[0].String()}
		peers[n] = control.Peer{Name: name, Role: role}
		if h.Behind == "" {
			peers[n].Addresses = address
		}
		at := n
		preparing.Go(func() error {
			var r control.PrepareResult
			err := o.drive(ctx, name, control.MethodPrepare, control.PrepareParams{
				Name: name, Role: role, Addresses: address, Dir: filepath.Join(o.dir, name), Profile: "nec2006",
			}, &r)
			peers[at].Public, accounts[at] = r.Public, r.Accounts
			return err
		})
		n++
	}
	if err := preparing.Wait(); err != nil {
		return err
	}
	var starting errgroup.Group
	for n, p := range peers {
		start := control.StartParams{Peers: peers}
		if accounts[n] {
			for _, user := range []string{Caller, Callee} {
				start.Accounts = append(start.Accounts, control.Account{User: user, Password: password})
			}
		}
		starting.Go(func() error { return o.drive(ctx, p.Name, control.MethodStart, start, nil) })
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	for _, user := range []string{Caller, Callee} {
		if err := o.drive(ctx, user, control.MethodLogin, control.LoginParams{User: user, Password: password}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) drive(ctx context.Context, name, method string, params, result any) error {
	if err := o.nodes[name].Call(ctx, method, params, result); err != nil {
		return fmt.Errorf("%s: %s: %w", name, method, err)
	}
	return nil
}

// stop ends all nodes.
func (o *overlay) stop() {
	var stopping errgroup.Group
	for _, node := range o.nodes {
		stopping.Go(func() error { node.Stop(context.Background()); return nil })
	}
	stopping.Wait() // none returns an error
}

// call sets up one call and hangs up. The boxes let nothing in that an earlier
// call asked for.
func (o *overlay) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no call within %v", limit))
	defer cancel()
	if err := o.recorder.Rest(ctx, quiet); err != nil {
		return err
	}
	for _, box := range o.internet.Boxes() {
		if err := o.internet.ExpireUDP(box.Name); err != nil {
			return err
		}
	}
	var up control.CallResult
	if err := o.drive(ctx, Caller, control.MethodCall, control.PeerParams{Callee: Callee, Payload: make([]byte, 1<<10)}, &up); err != nil {
		return err
	}
	o.calls++
	if up.Media == nil || up.Media.Path != "punched" {
		return fmt.Errorf("media %+v, want a punched path", up.Media)
	}
	return o.drive(ctx, Caller, control.MethodHangup, control.HangupParams{Call: up.Call}, nil)
}

// accepts are the lines of the callee's log, with the time at which it had the
// caller's offer and accepted.
var accepts = regexp.MustCompile(`msg="call accepted".* accepted=(\S+) caller=`)

// accepted are the times at which the callee accepted.
func (o *overlay) accepted() (all []time.Time, err error) {
	f, err := os.Open(o.log(Callee))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := accepts.FindStringSubmatch(lines.Text()); m != nil {
			at, err := time.Parse(time.RFC3339Nano, m[1])
			if err != nil {
				return nil, fmt.Errorf("log of %s: %w", Callee, err)
			}
			all = append(all, at)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) != o.calls {
		return nil, fmt.Errorf("%s accepted %d times in %d calls", Callee, len(all), o.calls)
	}
	return all, nil
}

// waited is what a call's ends waited for media since the callee accepted.
type waited struct {
	first time.Duration // until a packet of either was with the other
	both  time.Duration // until each had one of the other's
}

// measure reads from the packets that came to the two hosts how long each call
// took, in order. A media packet counts only if it comes from the other's box.
func (o *overlay) measure() ([]waited, error) {
	if losses, err := o.losses(); err != nil {
		return nil, err
	} else if reasons := losses.Reasons(); len(reasons) > 0 {
		return nil, fmt.Errorf("the capture is not whole: %q", reasons)
	}
	accepted, err := o.accepted()
	if err != nil {
		return nil, err
	}
	from := map[string]netip.Addr{} // by the host that gets it
	boxes := o.internet.Boxes()
	for _, h := range o.internet.Plan.Hosts {
		for _, b := range boxes {
			if h.Behind != "" && b.Name != h.Behind {
				from[h.Name] = b.WAN[0]
			}
		}
	}
	came := make([]map[string]time.Time, len(accepted)) // by call and host
	sent := make([]map[string]bool, len(accepted))      // to the other's box
	for n := range came {
		came[n], sent[n] = map[string]time.Time{}, map[string]bool{}
	}
	f, err := os.Open(filepath.Join(o.dir, "capture", evidence.CaptureFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = evidence.ReadCapture(f, func(c evidence.CapturedPacket) error {
		p, ok := evidence.ParseFrame(c.Data)
		peer := from[c.Tap]
		out := p.Tuple.Dst.Addr() == peer
		if !ok || p.Transport != evidence.UDP || p.Tuple.Src.Addr() != peer && !out {
			return nil
		}
		n, _ := slices.BinarySearchFunc(accepted, c.Time, time.Time.Compare)
		if n--; n < 0 {
			return nil
		}
		if out {
			sent[n][c.Tap] = true
			return nil
		}
		if !sent[n][c.Tap] {
			return fmt.Errorf("call %d: the box of %s let something in that nothing had asked for", n+1, c.Tap)
		}
		media := p.Payload == mediaSize && c.Data[len(c.Data)-mediaSize]>>6 == rtpVersion
		if _, ok := came[n][c.Tap]; !ok && media {
			came[n][c.Tap] = c.Time
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]waited, len(accepted))
	for n, at := range accepted {
		if len(came[n]) != 2 {
			return nil, fmt.Errorf("call %d: media came to %d hosts, want 2", n+1, len(came[n]))
		}
		caller, callee := came[n][Caller].Sub(at), came[n][Callee].Sub(at)
		all[n] = waited{first: min(caller, callee), both: max(caller, callee)}
	}
	return all, nil
}

// No media is with the other end in less than a round trip: the answer takes
// half of one at least, and what it allows to be let in another half.
func TestOverlay(t *testing.T) {
	const rtt = 50 * time.Millisecond
	names, _ := overlayServers()
	o := startOverlay(t, up(t, rtt, names...))
	if err := o.call(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := o.measure()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].first < rtt || all[0].both < all[0].first {
		t.Errorf("media came after %+v, want one call, and a round trip of %v at least", all, rtt)
	}
}
