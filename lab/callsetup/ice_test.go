package callsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	pion "github.com/pion/stun/v3"
	"golang.org/x/sys/unix"

	"gauntlet/lab/internet"
	"gauntlet/lab/process"
	"gauntlet/nodes/stun"
	"gauntlet/topo/ns"
)

// limit bounds one call.
const limit = 30 * time.Second

// up builds the internet of a comparison.
func up(t testing.TB, rtt time.Duration, servers ...string) *internet.Internet {
	t.Helper()
	i, err := internet.Up(t.Context(), Topology(rtt, servers...))
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if doubts := i.Doubts(); len(doubts) > 0 {
			t.Errorf("doubts about the links: %q", doubts)
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// stunHost is the host of the agents' STUN server.
const stunHost = "stun"

// startSTUN starts a STUN server on the host of its name, and returns its
// address.
func startSTUN(t testing.TB, i *internet.Internet) netip.AddrPort {
	t.Helper()
	h, _ := i.Plan.Host(stunHost)
	address := netip.AddrPortFrom(h.Addrs[0], 3478)
	serve(t, i.Namespace(stunHost), address)
	return address
}

// serve answers Binding requests as the overlay's supernodes do, but shorter ones
// than its responses too: pion's are not padded.
func serve(t testing.TB, space *ns.Handle, address netip.AddrPort) {
	t.Helper()
	var conn *net.UDPConn
	if err := space.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return // closed
			}
			m := &pion.Message{Raw: buffer[:n]}
			if m.Decode() != nil || m.Type != pion.BindingRequest {
				continue
			}
			if response, err := stun.Response(m.TransactionID, from); err == nil {
				conn.WriteToUDPAddrPort(response, from) // a lost response is asked for again
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// end is an agent's process.
type end struct {
	in   io.WriteCloser
	told chan signal // what it says; closed with it
	wait func() error
}

func (e *end) tell(s signal) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = e.in.Write(append(line, '\n'))
	return err
}

// startAgent starts an agent on a host.
func startAgent(ctx context.Context, space *ns.Handle, server netip.AddrPort, eager bool) (*end, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), agentVariable+"="+server.String())
	if eager {
		cmd.Env = append(cmd.Env, eagerVariable+"=1")
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// Like the overlay's nodes, which stand back in priority.
	if err := process.Start(cmd, space, process.Privileges{}); err != nil {
		return nil, err
	}
	e := &end{in: in, told: make(chan signal, 64)}
	read := make(chan error, 1)
	go func() {
		defer close(e.told)
		lines := json.NewDecoder(out)
		for {
			var s signal
			if err := lines.Decode(&s); err != nil {
				read <- err
				return
			}
			e.told <- s
		}
	}()
	e.wait = func() error {
		err := in.Close()
		for range e.told { // what it still says
		}
		if of := <-read; !errors.Is(of, io.EOF) {
			err = errors.Join(err, of)
		}
		return errors.Join(err, cmd.Wait())
	}
	return e, nil
}

// gathered has an agent begin, and returns all that the other one needs of it.
func (e *end) gathered(ctx context.Context, caller bool) (all []signal, err error) {
	if err := e.tell(signal{Accept: true, Caller: caller}); err != nil {
		return nil, err
	}
	for {
		select {
		case s, ok := <-e.told:
			if !ok {
				return nil, errors.New("an agent ended")
			}
			if all = append(all, s); s.Gathered {
				return all, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// setUp is how long one call takes by pion/ice. The caller's offer is with the
// callee before that accepts; the answer's candidates follow one by one, or, by
// eager agents, are gathered before the callee accepts, as the reference overlay
// does. Offer and answer pass through this process without delay, which favours
// ICE: through a supernode each would take a round trip.
func setUp(ctx context.Context, i *internet.Internet, server netip.AddrPort, eager bool) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no call within %v", limit))
	defer cancel()
	caller, err := startAgent(ctx, i.Namespace(Caller), server, eager)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, caller.wait()) }()
	callee, err := startAgent(ctx, i.Namespace(Callee), server, eager)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, callee.wait()) }()

	offer, err := caller.gathered(ctx, true)
	if err != nil {
		return 0, err
	}
	var answer []signal
	if eager {
		if answer, err = callee.gathered(ctx, false); err != nil {
			return 0, err
		}
	} else {
		offer = append([]signal{{Accept: true}}, offer...)
	}
	start := time.Now()
	for _, s := range offer {
		if err := callee.tell(s); err != nil {
			return 0, err
		}
	}
	for _, s := range answer {
		if err := caller.tell(s); err != nil {
			return 0, err
		}
	}
	for {
		select {
		case s, ok := <-callee.told:
			if !ok {
				return 0, errors.New("the callee ended")
			}
			if s.Got {
				return time.Since(start), nil
			}
			if err := caller.tell(s); err != nil {
				return 0, err
			}
		case s, ok := <-caller.told:
			if !ok {
				return 0, errors.New("the caller ended")
			}
			if s.Got {
				return time.Since(start), nil
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// No call is set up in less than the answer's way to the caller's first check
// and its answer: a round trip, of which the boxes let no part be left out.
func TestICE(t *testing.T) {
	const rtt = 50 * time.Millisecond
	i := up(t, rtt, stunHost)
	server := startSTUN(t, i)
	for _, eager := range []bool{false, true} {
		took, err := setUp(t.Context(), i, server, eager)
		if err != nil {
			t.Fatal(err)
		}
		if took < rtt {
			t.Errorf("eager %v: a call was set up in %v, less than a round trip of %v", eager, took, rtt)
		}
	}
}
