// Command malicious is a supernode of the reference overlay that changes the media
// which it relays, for tests of those that it is relayed to.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"gauntlet/nodes/network"
	"gauntlet/nodes/role"
)

// every is how many media packets there are to each that is changed: an odd number,
// so that both directions have their share.
const every = 9

// packetSize is that of a media packet of the 2004 load, in bytes of UDP payload.
const packetSize = 67

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	n, err := role.New(ctx, role.RoleSupernode, evilNetwork{network.OS()}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer n.Close()
	return role.Drive(ctx, n, os.Stdin, os.Stdout)
}

type evilNetwork struct{ network.Network }

func (n evilNetwork) ListenPacket(ctx context.Context, at netip.AddrPort) (net.PacketConn, error) {
	c, err := n.Network.ListenPacket(ctx, at)
	if err != nil {
		return nil, err
	}
	return &evilSocket{PacketConn: c.(network.PacketConn)}, nil
}

type evilSocket struct {
	network.PacketConn
	passed atomic.Int64
}

// WriteToUDPAddrPort changes a bit in the middle of a media packet now and then. RTP
// is of version 2, RFC 3550 section 5.1.
func (s *evilSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if len(b) == packetSize && b[0]>>6 == 2 && s.passed.Add(1)%every == 0 {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
	}
	return s.PacketConn.WriteToUDPAddrPort(b, to)
}
