package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
)

// HTTPPort is the TCP port inside of UPnP's descriptions and SOAP: that of the
// UPnP Forum's sample of a device.
const HTTPPort = 5000

// natPMPPort is the UDP port of NAT-PMP and PCP, RFC 6886 §3.1 and RFC 6887 §19.1.
const natPMPPort = 5351

// notifyInterval is the time between two SSDP announcements in seconds, as in
// UPnP Device Architecture 1.1 §1.2.2 (max-age of at least 1800 s). Those inside
// search; they needn't wait for one.
const notifyInterval = 1800

// miniupnpdConfig is what miniupnpd.conf(8) calls it. miniupnpd refuses to be
// told an external address that isn't public, and those of a lab never are
// (RFC 6890); so it asks STUN, which is how it learns its address behind other
// NATs.
func (g *Gateway) miniupnpdConfig(stun netip.AddrPort) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("ext_ifname=%s", g.WAN)
	line("ext_perform_stun=yes")
	line("ext_stun_host=%v", stun.Addr())
	line("ext_stun_port=%d", stun.Port())
	line("listening_ip=%s", g.LAN)
	line("http_port=%d", HTTPPort)
	line("enable_upnp=yes")
	line("enable_natpmp=yes")
	line("ipv6_disable=yes")
	line("secure_mode=yes") // only to the host that asks
	line("system_uptime=no")
	line("notify_interval=%d", notifyInterval)
	line("upnp_table_name=%s", middlebox.PortMappingTable)
	line("upnp_nat_table_name=%s", middlebox.PortMappingTable)
	line("upnp_forward_chain=%s", middlebox.PortMappingForward)
	line("upnp_nat_chain=%s", middlebox.PortMappingPrerouting)
	line("upnp_nat_postrouting_chain=%s", middlebox.PortMappingPostrouting)
	line("uuid=%s", uuid(g.Box))
	// No well-known port is given, as in the rules that Debian suggests.
	line("allow 1024-65535 %v 0-65535", g.Inside)
	line("deny 0-65535 0.0.0.0/0 0-65535")
	return b.String()
}

// uuid is one for each box, made of its name: RFC 9562 §5.8 leaves its bits to
// whoever makes it.
func uuid(box string) string {
	var b [16]byte
	copy(b[:], box)
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (g *Gateway) startPortMapping(ctx context.Context) (err error) {
	if g.stun, err = newResponder(g.Namespace, g.External); err != nil {
		return err
	}
	if g.ports, err = middlebox.NewPortMapper(g.Loader, g.WAN, g.External); err != nil {
		return err
	}
	keep := []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	s, err := g.run(MiniUPnPd, g.miniupnpdConfig(g.stun.at), keep, func(file string) []string {
		return []string{"-d", "-f", file, "-P", filepath.Join(g.Dir, "miniupnpd.pid")}
	})
	if err != nil {
		return err
	}
	return serves(ctx, s, g.askAddress)
}

// CatchUp returns when the box keeps to all port mappings that were answered
// before the call.
func (g *Gateway) CatchUp() error {
	if g.ports == nil {
		return nil
	}
	return g.ports.CatchUp()
}

// askAddress asks for the external address by NAT-PMP, RFC 6886 §3.2. The
// program answers only once everything else is set up.
func (g *Gateway) askAddress(context.Context) error {
	var c net.Conn
	err := g.Namespace.Do(func() (err error) {
		c, err = net.Dial("udp4", netip.AddrPortFrom(g.Address, natPMPPort).String())
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte{0, 0}); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if n != 12 || answer[1] != 128 {
		return fmt.Errorf("NAT-PMP: answer % x; expected 12 bytes, opcode 128", answer[:n])
	}
	if result := binary.BigEndian.Uint16(answer[2:]); result != 0 {
		return fmt.Errorf("NAT-PMP: result code %d", result)
	}
	if got := netip.AddrFrom4([4]byte(answer[8:12])); got != g.External {
		return errors.New("NAT-PMP: external address " + got.String() + "; expected " + g.External.String())
	}
	return nil
}
