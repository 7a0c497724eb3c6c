// Package conduct puts the nodes of an overlay in service, wherever they run
// and whoever started them.
package conduct

import (
	"context"

	"golang.org/x/sync/errgroup"

	"gauntlet/nodes/control"
)

// Member is a node as it is told who it is.
type Member struct {
	control.PrepareParams
	// Public says that the others may know the node's addresses.
	Public bool
}

// Call asks the node of a name for a method.
type Call func(ctx context.Context, name, method string, params, result any) error

// Up has all nodes prepare, then puts all in service with what each made
// public, and those that keep accounts with the accounts. It returns the answers to
// prepare, by name.
func Up(ctx context.Context, members []Member, accounts []control.Account, call Call) (map[string]control.PrepareResult, error) {
	results := make([]control.PrepareResult, len(members))
	err := each(ctx, members, func(ctx context.Context, i int) error {
		return call(ctx, members[i].Name, control.MethodPrepare, members[i].PrepareParams, &results[i])
	})
	if err != nil {
		return nil, err
	}
	prepared := map[string]control.PrepareResult{}
	var peers []control.Peer
	for i, m := range members {
		prepared[m.Name] = results[i]
		peer := control.Peer{Name: m.Name, Role: m.Role, Public: results[i].Public}
		if m.Public {
			peer.Addresses = m.Addresses
		}
		peers = append(peers, peer)
	}
	return prepared, each(ctx, members, func(ctx context.Context, i int) error {
		p := control.StartParams{Peers: peers}
		if results[i].Accounts {
			p.Accounts = accounts
		}
		return call(ctx, members[i].Name, control.MethodStart, p, nil)
	})
}

// each calls f for all members at once.
func each(ctx context.Context, members []Member, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range members {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}
