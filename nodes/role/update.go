package role

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"

	"gauntlet/nodes/control"
	"gauntlet/nodes/network"
	"gauntlet/nodes/update"
)

// updateNode is the update server.
type updateNode struct {
	node
	server *update.Server
}

func newUpdate(ctx context.Context, nw network.Network, log *slog.Logger) *updateNode {
	n := new(updateNode)
	n.init(ctx, nw, log)
	return n
}

func (n *updateNode) Methods() control.Methods {
	return lifecycle(n.prepareUpdate, n.start, n.Close)
}

func (n *updateNode) prepareUpdate(_ context.Context, p control.PrepareParams) (*control.PrepareResult, error) {
	if err := n.prepare(p); err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(n.addr, updatePort)
	public, err := json.Marshal(updatePublic{Address: addr, URL: "http://" + addr.String()})
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return &control.PrepareResult{Functions: []string{}, Public: public}, nil
}

func (n *updateNode) start(ctx context.Context, _ control.StartParams) (struct{}, error) {
	var none struct{}
	if err := n.begin(); err != nil {
		return none, err
	}
	l, err := n.nw.Listen(ctx, netip.AddrPortFrom(n.addr, updatePort))
	if err != nil {
		return none, fmt.Errorf("start: %w", err)
	}
	n.server = update.Serve(l, n.log)
	n.log.Info("update server is up", "addr", l.Addr(), "version", update.Version)
	return none, nil
}

// Close ends the server.
func (n *updateNode) Close() error {
	n.cancel()
	n.wg.Wait()
	if n.server != nil {
		return n.server.Close()
	}
	return nil
}
