// Package gateway runs in a box's own namespace what a router or firewall
// offers to those inside by a program: an HTTP proxy (tinyproxy), and port
// mapping by UPnP IGD, NAT-PMP and PCP (miniupnpd). The programs are the
// machine's own, as Debian packages them.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"gauntlet/lab/process"
	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// startTimeout bounds how long a program may take until it serves. miniupnpd
// waits up to 3 s more where an answer of STUN is late.
const startTimeout = 10 * time.Second

// Program is an executable of the machine.
type Program struct {
	Name    string // of the executable
	Package string // that has it, of Debian
	Does    string // what boxes need it for
}

// The programs.
var (
	Tinyproxy = Program{Name: "tinyproxy", Package: "tinyproxy-bin", Does: "proxy: http-connect"}
	MiniUPnPd = Program{Name: "miniupnpd", Package: "miniupnpd-nftables", Does: "port_mapping: true"}
)

// Programs are all of them.
var Programs = []Program{Tinyproxy, MiniUPnPd}

// Missing says that a program is not installed.
type Missing struct{ Program Program }

func (m *Missing) Error() string {
	return fmt.Sprintf("%s is not installed, which %s needs; install Debian's package %s", m.Program.Name, m.Program.Does, m.Program.Package)
}

// Find returns the path of the executable, or a *Missing. Those of system
// programs may not be on a user's PATH.
func (p Program) Find() (string, error) {
	if path, err := exec.LookPath(p.Name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, p.Name)); err == nil {
			return path, nil
		}
	}
	return "", &Missing{p}
}

// Needs are the programs that a box of that behaviour runs.
func Needs(b middlebox.Behaviour) (all []Program) {
	if b.Proxy != middlebox.NoProxy {
		all = append(all, Tinyproxy)
	}
	if b.PortMapping {
		all = append(all, MiniUPnPd)
	}
	return all
}

// Config is a box with what its programs have to know.
type Config struct {
	Box       string // name
	Behaviour middlebox.Behaviour
	Namespace *ns.Handle
	Loader    *middlebox.Loader
	WAN, LAN  string         // names of the interfaces
	External  netip.Addr     // that ports are mapped at
	Address   netip.Addr     // inside
	Inside    netip.Prefix   // network of those who may ask for mappings
	Upstream  netip.AddrPort // proxy of the next box outward that has one; the zero one is none
	Dir       string         // folder for configuration, which must be this box's own
	Logs      string         // folder for logs, "" for none
}

// Gateway is what runs in one box.
type Gateway struct {
	Config
	services []*process.Service
	ports    *middlebox.PortMapper
	stun     *responder
}

// Start starts the programs that the behaviour asks for and returns once all of
// them serve. If one is not installed, the error is a *Missing.
func Start(ctx context.Context, c Config) (_ *Gateway, err error) {
	g := &Gateway{Config: c}
	defer func() {
		if err != nil {
			err = fmt.Errorf("gateway of %s: %w", c.Box, errors.Join(err, g.Stop()))
		}
	}()
	for _, p := range Needs(c.Behaviour) {
		if _, err := p.Find(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if c.Logs != "" {
		if err := os.MkdirAll(c.Logs, 0o755); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it does not serve after %v", startTimeout))
	defer cancel()
	if c.Behaviour.Proxy != middlebox.NoProxy {
		if err := g.startProxy(ctx); err != nil {
			return nil, err
		}
	}
	if c.Behaviour.PortMapping {
		if err := g.startPortMapping(ctx); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// run starts one program with its configuration.
func (g *Gateway) run(p Program, config string, keep []int, args func(file string) []string) (*process.Service, error) {
	path, err := p.Find()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(g.Dir, filepath.Base(p.Name)+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log := ""
	if g.Logs != "" {
		log = filepath.Join(g.Logs, g.Box+"-"+filepath.Base(p.Name)+".log")
	}
	s, err := process.StartService(process.Config{
		Name: filepath.Base(p.Name), Argv: append([]string{path}, args(file)...), Dir: g.Dir, Log: log,
		Env: []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}, Namespace: g.Namespace, Privileges: process.Privileges{Keep: keep},
	})
	if err == nil {
		g.services = append(g.services, s)
	}
	return s, err
}

// pollInterval is the time between two questions whether a program serves.
const pollInterval = 10 * time.Millisecond

// serves asks until the answer is nil, or the service has died, or ctx ends.
func serves(ctx context.Context, s *process.Service, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.Done():
			return s.Ended()
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", s.Name, context.Cause(ctx), err)
		case <-time.After(pollInterval):
		}
	}
}

// Err is why a program runs no more, nil if all do.
func (g *Gateway) Err() error {
	for _, s := range g.services {
		select {
		case <-s.Done():
			return fmt.Errorf("gateway of %s: %w", g.Box, s.Ended())
		default:
		}
	}
	return nil
}

// Stop ends the programs as the loss of power does: connections break, port
// mappings are gone.
func (g *Gateway) Stop() error {
	for _, s := range g.services {
		s.Kill()
	}
	g.services = nil
	var errs []error
	if g.ports != nil {
		errs = append(errs, g.ports.Close())
		g.ports = nil
	}
	if g.stun != nil {
		errs = append(errs, g.stun.close())
		g.stun = nil
	}
	return errors.Join(append(errs, os.RemoveAll(g.Dir))...)
}
