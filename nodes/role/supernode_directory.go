package role

import (
	"context"
	"fmt"
	"net/netip"

	"gauntlet/nodes/directory"
	"gauntlet/nodes/link"
	"gauntlet/nodes/membership"
)

// hookDirectory has the supernode keep users' records and introduce its
// clients.
func (n *supernode) hookDirectory() {
	n.atStart = append(n.atStart, func(context.Context) error {
		n.directory.Store(directory.NewServer(directory.ServerConfig{
			Roots: n.peers.roots, Profile: n.profile, Socket: n.udp, Log: n.log,
			Supernodes: members{n}, Clients: clients{n},
		}))
		return nil
	})
	for _, method := range directory.Methods() {
		n.methods[method] = func(ctx context.Context, c *link.Conn, body []byte) (any, error) {
			// Listeners are open before the hooks of start have run.
			server := n.directory.Load()
			if server == nil {
				return nil, link.ErrUnknown
			}
			answer, _, err := server.Serve(ctx, c, method, body)
			return answer, err
		}
	}
}

// members is the membership as the directory sees it.
type members struct{ n *supernode }

func (m members) named(list []membership.Supernode) []directory.Supernode {
	out := make([]directory.Supernode, 0, len(list))
	for _, one := range list {
		if cert := m.n.members.Certificate(one.ID); cert != nil {
			out = append(out, directory.Supernode{Name: cert.Name, Addr: one.Addr, Seal: one.Seal})
		}
	}
	return out
}

func (m members) Self() directory.Supernode {
	return directory.Supernode{Name: m.n.cert.Name, Addr: m.n.cert.Addr, Seal: m.n.cert.Seal.Bytes()}
}

func (m members) All() []directory.Supernode { return m.named(m.n.members.Supernodes()) }

func (m members) Responsible(name string, n int) []directory.Supernode {
	return m.named(membership.Responsible(m.n.members.Supernodes(), name, n))
}

func (m members) Call(ctx context.Context, to directory.Supernode, method string, request, answer any) error {
	for _, one := range m.n.members.Supernodes() {
		if one.Addr != to.Addr {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, m.n.profile.AnswerTimeout,
			fmt.Errorf("no answer in %s", m.n.profile.AnswerTimeout))
		defer cancel()
		c, err := m.n.links.to(ctx, one.ID)
		if err != nil {
			return err
		}
		return c.Call(ctx, method, request, answer)
	}
	return fmt.Errorf("supernode %s at %s is no member", to.Name, to.Addr)
}

// clients are the supernode's users as the directory sees them.
type clients struct{ n *supernode }

func (c clients) Link(name string) (*link.Conn, bool) {
	if s := c.n.sessions.of(name); s != nil {
		return s.link, true
	}
	return nil, false
}

func (c clients) External(name string) (netip.AddrPort, bool) {
	if s := c.n.sessions.of(name); s != nil {
		at := s.UDP()
		return at, at.IsValid()
	}
	return netip.AddrPort{}, false
}
