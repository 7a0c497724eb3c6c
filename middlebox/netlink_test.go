package middlebox

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	vishvananda "github.com/vishvananda/netlink"

	"gauntlet/topo/ns"
)

// addAddress adds an address to an interface of the calling thread's
// namespace.
func addAddress(name string, addr netip.Prefix) error {
	handle, err := vishvananda.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	link, err := handle.LinkByName(name)
	if err != nil {
		return err
	}
	parsed, err := vishvananda.ParseAddr(addr.String())
	if err != nil {
		return err
	}
	if err := handle.AddrAdd(link, parsed); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// flows counts the UDP flows that a namespace tracks.
func flows(t *testing.T, h *ns.Handle) int {
	t.Helper()
	return tracked(t, h, unix.IPPROTO_UDP)
}

// tracked counts the flows of a protocol that a namespace tracks.
func tracked(t *testing.T, h *ns.Handle, proto uint8) (n int) {
	t.Helper()
	if err := h.Do(func() error {
		handle, err := vishvananda.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer handle.Close()
		list, err := handle.ConntrackTableList(vishvananda.ConntrackTable, unix.AF_INET)
		for _, flow := range list {
			if flow.Forward.Protocol == proto {
				n++
			}
		}
		if errors.Is(err, vishvananda.ErrDumpInterrupted) {
			n, err = max(n, 1), nil
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// listenLog subscribes to an NFLOG group of a namespace. Messages and
// attributes are those of linux/netfilter/nfnetlink_log.h.
func listenLog(t *testing.T, h *ns.Handle) *netlink.Conn {
	t.Helper()
	const (
		config, attrCommand, attrMode = unix.NFNL_SUBSYS_ULOG<<8 | 1, 1, 2
		bind, copyPacket              = 1, 2
	)
	var conn *netlink.Conn
	if err := h.Do(func() (err error) {
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	mode := append(binary.BigEndian.AppendUint32(nil, 0xffff), copyPacket, 0)
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: attrCommand, Data: []byte{bind}}, {Type: attrMode, Data: mode}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: config, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, 0, 0, group}, attrs...),
	}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// nextLog returns prefix and packet of the next message.
func nextLog(t *testing.T, conn *netlink.Conn) (prefix string, packet []byte) {
	t.Helper()
	const attrPayload, attrPrefix = 9, 10
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	messages, err := conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) != 1 {
		t.Fatalf("%d log messages at once, want 1", len(messages))
	}
	attrs, err := nl.ParseRouteAttr(messages[0].Data[4:])
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case attrPayload:
			packet = a.Value
		case attrPrefix:
			prefix = strings.TrimRight(string(a.Value), "\x00")
		}
	}
	return prefix, packet
}

// What is dropped comes out of the group whole, with the rule's name.
func TestDropsAreLogged(t *testing.T) {
	nat, _ := Preset("port-restricted")
	firewall, _ := Preset("stateful-firewall")
	cases := []struct {
		name, rule string
		b          Behaviour
		provoke    func(l *lab)
		source     string
	}{
		{"to the box", UnsolicitedRule, nat, func(l *lab) {
			box, _ := l.plan.Box("a")
			l.send(l.udp("s1"), netip.AddrPortFrom(box.WAN[0], 4000), "stranger")
		}, "s1"},
		{"through the box", UnsolicitedRule, firewall, func(l *lab) {
			l.send(l.udp("s1"), netip.AddrPortFrom(l.addr("alice"), 4000), "stranger")
		}, "s1"},
		{"blocked", "block-udp", with(nat, func(b *Behaviour) { b.Block = []Protocol{UDP} }), func(l *lab) {
			l.send(l.udp("alice"), netip.AddrPortFrom(l.addr("s1"), 4000), "stranger")
		}, "alice"},
		{"denied", "deny-s2", with(firewall, func(b *Behaviour) { b.Deny = []Deny{{Host: "s2"}} }), func(l *lab) {
			l.send(l.udp("alice"), netip.AddrPortFrom(l.addr("s2"), 4000), "stranger")
		}, "alice"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.b, c.b)
			conn := listenLog(t, l.space("a"))
			c.provoke(l)
			prefix, packet := nextLog(t, conn)
			const headers = 20 + 8 // IPv4 and UDP
			if prefix != c.rule || len(packet) != headers+len("stranger") || string(packet[headers:]) != "stranger" {
				t.Fatalf("logged %q, %q; want %q and the whole packet", prefix, packet, c.rule)
			}
			if source, _ := netip.AddrFromSlice(packet[12:16]); source != l.addr(c.source) {
				t.Errorf("the packet is from %v, want %s", source, c.source)
			}
			if n := l.dropped("a", c.rule); n != 1 {
				t.Errorf("%d counted, want 1", n)
			}
			if err := conn.SetReadDeadline(time.Now()); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a second message, or %v", err)
			}
		})
	}
}
