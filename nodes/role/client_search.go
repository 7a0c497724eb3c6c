package role

import (
	"context"
	"errors"

	"gauntlet/nodes/control"
)

// errLoggedOut is for functions before login.
var errLoggedOut = errors.New("nobody is logged in at this node")

// hookSearch offers search.
func (n *client) hookSearch() {
	n.offer(control.MethodSearch, control.Do(func(ctx context.Context, p control.PeerParams) (*control.PeerResult, error) {
		f := n.held.get()
		if f == nil {
			return nil, errLoggedOut
		}
		path, err := f.search.Search(ctx, p.Callee, p.Payload)
		if err != nil {
			return nil, err
		}
		n.log.Info("search done", "callee", p.Callee, "path", path.Path, "relays", path.Relays)
		return &control.PeerResult{Path: path}, nil
	}))
}
