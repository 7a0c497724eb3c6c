package role

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"gauntlet/nodes/control"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/network"
	"gauntlet/nodes/profile"
)

// node is what all roles share: who they are, their keys, and the life of
// their goroutines.
type node struct {
	nw  network.Network
	log *slog.Logger

	ctx    context.Context // of all that the node runs
	cancel context.CancelFunc
	wg     sync.WaitGroup

	params  control.PrepareParams
	profile *profile.Profile
	keys    *identity.Keys
	addr    netip.Addr // the host's first address
	started bool
}

func (n *node) init(ctx context.Context, nw network.Network, log *slog.Logger) {
	n.nw, n.log = nw, log
	n.ctx, n.cancel = context.WithCancel(ctx)
}

// lifecycle are the methods that nodes of every role have.
func lifecycle(
	prepare func(context.Context, control.PrepareParams) (*control.PrepareResult, error),
	start func(context.Context, control.StartParams) (struct{}, error),
	stop func() error,
) control.Methods {
	return control.Methods{
		control.MethodPrepare: control.Do(prepare),
		control.MethodStart:   control.Do(start),
		control.MethodStop:    control.Do(func(context.Context, struct{}) (struct{}, error) { return struct{}{}, stop() }),
	}
}

// prepare takes what the lab says about the node and makes its keys.
func (n *node) prepare(p control.PrepareParams) error {
	if n.keys != nil {
		return errors.New("prepare: called twice")
	}
	prof, err := profile.Named(p.Profile)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if n.addr, err = firstAddress(p.Addresses, n.nw); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := identity.CheckName(p.Name); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	keys, err := identity.NewKeys()
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	n.params, n.profile, n.keys = p, prof, keys
	n.log = n.log.With("node", p.Name)
	return nil
}

func firstAddress(given []string, nw network.Network) (netip.Addr, error) {
	if len(given) > 0 {
		a, err := netip.ParseAddr(given[0])
		if err != nil {
			return a, fmt.Errorf("address: %w", err)
		}
		return a, nil
	}
	if own := nw.Addrs(); len(own) > 0 {
		return own[0], nil
	}
	return netip.Addr{}, errors.New("the host has no address")
}

// begin guards start.
func (n *node) begin() error {
	switch {
	case n.keys == nil:
		return errors.New("start: prepare comes first")
	case n.started:
		return errors.New("start: called twice")
	case n.ctx.Err() != nil:
		return errors.New("start: the node is stopped")
	}
	n.started = true
	return nil
}
