package internet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/gateway"
	"gauntlet/lab/sandbox"
	"gauntlet/middlebox"
)

// serve starts the programs of all boxes.
func (i *Internet) serve(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(4)
	for _, b := range i.boxes {
		group.Go(func() error { return i.start(ctx, b) })
	}
	return group.Wait()
}

// start starts the programs of a box. One that is not installed is no error:
// Unserved tells of it.
func (i *Internet) start(ctx context.Context, b *box) error {
	b.unserved = nil
	if len(gateway.Needs(b.behaviour)) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp(sandbox.Dir(), "gateway-"+b.Name+"-")
	if err != nil {
		return fmt.Errorf("middlebox %s: %w", b.Name, err)
	}
	b.gateway, err = gateway.Start(ctx, gateway.Config{
		Box: b.Name, Behaviour: b.behaviour, Namespace: i.network.Namespace(b.Name), Loader: b.loader,
		WAN: "wan", LAN: "lan", External: b.WAN[0], Address: b.LANAddr, Inside: b.LAN,
		Upstream: i.proxyOf(b.Behind), Dir: dir, Logs: i.logs,
	})
	var missing *gateway.Missing
	if errors.As(err, &missing) {
		b.unserved = missing
		return os.RemoveAll(dir)
	}
	if err != nil {
		b.unserved = err
		return fmt.Errorf("middlebox %w", err)
	}
	return nil
}

// stop ends the programs of a box.
func (b *box) stop() error {
	if b.gateway == nil {
		return nil
	}
	err := b.gateway.Stop()
	b.gateway = nil
	if err != nil {
		return fmt.Errorf("middlebox %s: %w", b.Name, err)
	}
	return nil
}

// behave starts and stops programs as the behaviour asks now, which was another
// before. Those that go on keep what they know.
func (i *Internet) behave(b *box, before middlebox.Behaviour) error {
	if slices.Equal(gateway.Needs(before), gateway.Needs(b.behaviour)) {
		return nil
	}
	return errors.Join(b.stop(), i.start(context.Background(), b))
}

// proxyOf is the proxy of a box, or of the next one outward that has one; the
// zero one is none.
func (i *Internet) proxyOf(name string) netip.AddrPort {
	for name != "" {
		b := i.boxes[name]
		if b == nil {
			break
		}
		if b.behaviour.Proxy != middlebox.NoProxy {
			return netip.AddrPortFrom(b.LANAddr, middlebox.ProxyPort)
		}
		name = b.Behind
	}
	return netip.AddrPort{}
}

// Environment is what a program on a host is told of the network: http_proxy
// and https_proxy, if a box before the host has a proxy, as curl(1) and most
// others read them. The innermost such box counts, as it behaves now.
func (i *Internet) Environment(host string) []string {
	chain := i.Plan.Chain(host)
	if len(chain) == 0 {
		return nil
	}
	proxy := i.proxyOf(chain[0])
	if !proxy.IsValid() {
		return nil
	}
	url := fmt.Sprintf("http://%v", proxy)
	return []string{"http_proxy=" + url, "https_proxy=" + url}
}

// Unserved says why boxes don't offer what their behaviour says: a program is
// not installed, or has died. Checks behind such a box are inconclusive.
func (i *Internet) Unserved(boxes ...string) (reasons []string) {
	for _, name := range boxes {
		b := i.boxes[name]
		if b == nil {
			continue
		}
		err := b.unserved
		if err == nil && b.gateway != nil {
			err = b.gateway.Err()
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return reasons
}
