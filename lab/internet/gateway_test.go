package internet_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gauntlet/lab/gateway"
	"gauntlet/lab/internet"
	"gauntlet/middlebox"
)

// connects tries a TCP connection from a host, for so long.
func connects(i *internet.Internet, host string, to netip.AddrPort, limit time.Duration) error {
	return i.Namespace(host).Do(func() error {
		d := net.Dialer{Timeout: limit}
		c, err := d.Dial("tcp4", to.String())
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// What a box's behaviour asks for runs, and nothing else, however the box is
// changed, switched off and on, or given another address; that its programs
// then serve, with the new address, is seen before the call returns.
func TestPrograms(t *testing.T) {
	for _, p := range gateway.Programs {
		if _, err := p.Find(); err != nil {
			if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	i := up(t, `topology:
  middleboxes:
    home: {preset: port-restricted, port_mapping: true}
    inner: {preset: symmetric, behind: home}
  hosts: {alice: {behind: home}, bob: {behind: inner}, carol: {}}
`)
	box, _ := i.Plan.Box("home")
	proxy := netip.AddrPortFrom(box.LANAddr, middlebox.ProxyPort)
	upnp := netip.AddrPortFrom(box.LANAddr, gateway.HTTPPort)
	is := func(when string, wantProxy, wantUPnP bool) {
		t.Helper()
		for _, program := range []struct {
			at   netip.AddrPort
			want bool
		}{{proxy, wantProxy}, {upnp, wantUPnP}} {
			limit := time.Second // of silence
			if program.want {
				limit = 10 * time.Second
			}
			err := connects(i, "alice", program.at, limit)
			if program.want && err != nil || !program.want && err == nil {
				t.Errorf("%s: port %d of the box: %v, want it open: %v", when, program.at.Port(), err, program.want)
			}
			if !program.want && !wantProxy && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: port %d of the box: %v, want a refusal", when, program.at.Port(), err)
			}
		}
		env := strings.Join(i.Environment("bob"), " ")
		if want := "http_proxy=http://" + proxy.String() + " https_proxy=http://" + proxy.String(); wantProxy && env != want || !wantProxy && env != "" {
			t.Errorf("%s: environment %q", when, env)
		}
		if lacking := i.Unserved(i.Names()...); len(lacking) > 0 {
			t.Errorf("%s: %q", when, lacking)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is("at first", false, true)
	do(i.Reset("home"))
	do(i.Readdress("home"))
	is("with another address", false, true)

	b, _ := middlebox.Preset("symmetric")
	b.PortMapping = true
	do(i.Change("home", b, "symmetric"))
	is("as another NAT", false, true)
	web, _ := middlebox.Preset("http-connect")
	do(i.Change("home", web, "http-connect"))
	is("as a proxy", true, false)
	if err := connects(i, "alice", netip.MustParseAddrPort("198.18.0.1:80"), time.Second); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("past the proxy: %v, want silence", err)
	}
	plain, _ := middlebox.Preset("port-restricted")
	do(i.Change("home", plain, "port-restricted"))
	is("as a plain NAT", false, false)
	if env := i.Environment("carol"); env != nil {
		t.Errorf("carol, on the internet, is told of %q", env)
	}
}
