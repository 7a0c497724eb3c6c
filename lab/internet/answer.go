package internet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"

	"gauntlet/topo/ns"
)

// echoInterval is the time between two echo requests to a gateway that hasn't
// answered yet.
const echoInterval = 20 * time.Millisecond

// Answer waits until every host and every box gets an answer to an ICMP echo
// from its gateway.
func (i *Internet) Answer(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	ask := func(name string, gateway netip.Addr) {
		group.Go(func() error {
			if err := echo(ctx, i.network.Namespace(name), gateway); err != nil {
				return fmt.Errorf("%s: gateway %s: %w", name, gateway, err)
			}
			return nil
		})
	}
	for _, b := range i.Plan.Boxes {
		ask(b.Name, b.Gateway)
	}
	for _, h := range i.Plan.Hosts {
		ask(h.Name, h.Gateway)
	}
	return group.Wait()
}

// echo sends ICMP echo requests until one is answered.
func echo(ctx context.Context, in *ns.Handle, to netip.Addr) error {
	var conn *icmp.PacketConn
	err := in.Do(func() (err error) {
		conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	buffer := make([]byte, 1500)
	for seq := 1; ; seq++ {
		request, err := (&icmp.Message{
			Type: ipv4.ICMPTypeEcho,
			Body: &icmp.Echo{ID: seq, Seq: seq, Data: binary.BigEndian.AppendUint64(nil, uint64(seq))},
		}).Marshal(nil)
		if err != nil {
			return err
		}
		// A gateway that is not up yet makes the write fail; ask again.
		conn.WriteTo(request, &net.IPAddr{IP: to.AsSlice()})
		conn.SetReadDeadline(time.Now().Add(echoInterval))
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				break
			}
			if reply, err := icmp.ParseMessage(1, buffer[:n]); err == nil &&
				reply.Type == ipv4.ICMPTypeEchoReply && from.String() == to.String() {
				return nil
			}
		}
		if ctx.Err() != nil {
			return errors.Join(errors.New("no answer"), context.Cause(ctx))
		}
	}
}
