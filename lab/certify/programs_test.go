package certify

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"gauntlet/lab/gateway"
	"gauntlet/lab/internet"
	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
	"gauntlet/topo/ns"
)

// installed skips the test without a program, or fails it if GAUNTLET_NO_SKIP
// is 1.
func installed(t *testing.T, programs ...gateway.Program) {
	t.Helper()
	for _, p := range programs {
		if _, err := p.Find(); err != nil {
			if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// Boxes with programs are measured to do what they say, alone and behind each
// other.
func TestPrograms(t *testing.T) {
	installed(t, gateway.Programs...)
	i := up(t, `
topology:
  middleboxes:
    corp:  {preset: http-connect}
    dmz:   {preset: http-connect, behind: corp}
    site:  {preset: port-restricted, proxy: http-connect}
    home:  {preset: port-restricted, port_mapping: true}
    sym:   {preset: symmetric, port_mapping: true}
    full:  {preset: full-cone, port_mapping: true}
    isp:   {preset: cgnat, port_mapping: true}
    out:   {preset: restricted-cone, port_mapping: true}
    odd:   {mapping: address-dependent, filtering: address-and-port-dependent, ports: parity, port_mapping: true}
    pool:  {preset: symmetric, addresses: 3, pool: arbitrary, port_mapping: true, behind: isp}
  hosts:
    login: {}
    a: {behind: dmz}
    b: {behind: site}
    c: {behind: home}
    d: {behind: pool}
`)
	for range 2 { // the second time after all programs were started anew
		certificates, err := Boxes(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range certificates {
			t.Logf("%s: %.0f ms; proxy %q, port mapping %q", c.Box, c.Seconds*1e3, c.Measured.Proxy, c.Measured.PortMapping)
			for _, d := range c.Differences {
				t.Errorf("%s (%s): %s", c.Box, c.Label, d)
			}
		}
	}
}

// Without a program the lab stands, and what is behind the box is not certified;
// the reason names the package.
func TestProgramMissing(t *testing.T) {
	before := gateway.Tinyproxy.Name
	t.Cleanup(func() { gateway.Tinyproxy.Name = before })
	gateway.Tinyproxy.Name = "no-such-program"
	i := up(t, `
topology:
  middleboxes: {corp: {preset: http-connect}, other: {preset: udp-blocked}}
  hosts: {a: {behind: corp}, b: {behind: other}}
`)
	certificates, err := Boxes(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if c.Box == "other" && !c.Certified() {
			t.Errorf("other: %v", c.Differences)
		}
		if c.Box == "corp" && (!c.Unmeasured || !strings.Contains(strings.Join(c.Differences, ""), "install Debian's package tinyproxy-bin")) {
			t.Errorf("corp: %+v", c)
		}
	}
}

// A proxy that isn't the one declared is seen: one that connects to any port,
// and none at all.
func TestProxyLiar(t *testing.T) {
	installed(t, gateway.Tinyproxy)
	i := up(t, "topology: {middleboxes: {corp: {preset: udp-blocked}}, hosts: {a: {behind: corp}}}")
	box := i.Boxes()[0]
	loose := proxyAt(t, i.Namespace("corp"), netip.AddrPortFrom(box.LANAddr, middlebox.ProxyPort))
	b, err := newBench(i)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	b.attach()
	s, err := b.subject([]internet.Box{box})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ status, want string }{{"200", "any-port"}, {"403", "none"}} {
		loose.Store(&test.status)
		got, err := probe.Proxy(t.Context(), b.watch, s, netip.AddrPortFrom(box.LANAddr, middlebox.ProxyPort))
		if err != nil || got != test.want {
			t.Errorf("a proxy that answers %s is %q, %v; want %q", test.status, got, err, test.want)
		}
	}
}

// proxyAt is a proxy that answers each CONNECT with a status; 200 connects.
func proxyAt(t *testing.T, in *ns.Handle, at netip.AddrPort) *atomic.Pointer[string] {
	t.Helper()
	status := &atomic.Pointer[string]{}
	var l net.Listener
	if err := in.Do(func() (err error) {
		l, err = net.Listen("tcp4", at.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *status.Load() != "200" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var out net.Conn
		err := in.Do(func() (err error) {
			out, err = net.Dial("tcp4", r.Host)
			return err
		})
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		back := make(chan struct{})
		go func() {
			defer close(back)
			io.Copy(c, out)
		}()
		io.Copy(out, buffered)
		out.Close()
		<-back
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return status
}
