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
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo"
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
		Upstream: proxyOf(i.Plan, b.Behind, i.hasProxy), Dir: dir, Logs: i.logs,
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

// hasProxy says whether a box has a proxy, as it behaves now.
func (i *Internet) hasProxy(box string) bool {
	b := i.boxes[box]
	return b != nil && b.behaviour.Proxy != middlebox.NoProxy
}

// proxyOf is the proxy of a box, or of the next one outward that has one; the
// zero one is none.
func proxyOf(plan *topo.Plan, box string, has func(box string) bool) netip.AddrPort {
	for b, ok := plan.Box(box); ok; b, ok = plan.Box(b.Behind) {
		if has(b.Name) {
			return netip.AddrPortFrom(b.LANAddr, middlebox.ProxyPort)
		}
	}
	return netip.AddrPort{}
}

// Environment is what a program on a host is told of the network: http_proxy
// and https_proxy, if a box before the host has a proxy, as curl(1) and most
// others read them. The innermost such box counts, as it behaves now.
func (i *Internet) Environment(host string) []string {
	return environment(i.Plan, host, i.hasProxy)
}

// Environment is what [Internet.Environment] will be as soon as the topology stands,
// for a program that is started before.
func Environment(t scenario.Topology, host string) ([]string, error) {
	plan, err := topo.NewPlan(t.Description())
	if err != nil {
		return nil, err
	}
	proxies := map[string]bool{}
	for _, b := range plan.Boxes {
		described, _ := t.Middleboxes.Get(b.Name)
		behaviour, err := described.Behaviour()
		if err != nil {
			return nil, fmt.Errorf("middlebox %s: %w", b.Name, err)
		}
		proxies[b.Name] = behaviour.Proxy != middlebox.NoProxy
	}
	return environment(plan, host, func(box string) bool { return proxies[box] }), nil
}

func environment(plan *topo.Plan, host string, has func(box string) bool) []string {
	h, _ := plan.Host(host)
	proxy := proxyOf(plan, h.Behind, has)
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
