package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"gauntlet/middlebox"
)

// maxClients bounds the connections that the proxy serves at once: many more
// than the hosts of a LAN make here.
const maxClients = 256

// proxyIdle is after how long the proxy gives a silent connection up, in
// seconds: tinyproxy's own default.
const proxyIdle = 600

// tinyproxyConfig is what tinyproxy.conf(5) calls it.
func (g *Gateway) tinyproxyConfig() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Port %d", middlebox.ProxyPort)
	line("Listen %v", g.Address)
	line("Timeout %d", proxyIdle)
	line("MaxClients %d", maxClients)
	line("ConnectPort %d", middlebox.ProxyHTTPSPort)
	line("LogLevel Connect")
	line("PidFile %q", filepath.Join(g.Dir, "tinyproxy.pid"))
	line("DisableViaHeader Yes")
	if g.Upstream.IsValid() {
		line("Upstream http %v", g.Upstream)
	}
	return b.String()
}

func (g *Gateway) startProxy(ctx context.Context) error {
	s, err := g.run(Tinyproxy, g.tinyproxyConfig(), nil, func(file string) []string { return []string{"-d", "-c", file} })
	if err != nil {
		return err
	}
	return serves(ctx, s, func(ctx context.Context) error {
		return g.Namespace.Do(func() error {
			d := net.Dialer{Timeout: time.Second}
			c, err := d.Dial("tcp4", netip.AddrPortFrom(g.Address, middlebox.ProxyPort).String())
			if err != nil {
				return err
			}
			return c.Close()
		})
	})
}
