package middlebox

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// socketBuffer is the size asked for the buffers of the nf_tables socket, in
// bytes. A transaction must fit into them whole, with an answer to each of its
// messages.
const socketBuffer = 16 << 20

// buffers sets the size of a socket's buffers beyond the system's limit, or as
// far as it goes where that isn't allowed.
func buffers(c *mdnetlink.Conn) error {
	if err := errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer)); err != nil {
		return fmt.Errorf("set buffers of the nf_tables socket: %w", err)
	}
	return nil
}

// table is the table of every box. The kernel knows it by name.
func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4}
}

// Load puts rules in the place of those that a namespace has, in one
// transaction: no packet sees anything in between. Sets and counters begin
// empty; flows that exist go on under the new rules. Then it sets the kernel
// parameters that belong to the rules.
func Load(h *ns.Handle, rs *Ruleset) error {
	err := h.Do(func() error {
		// A transaction that deletes makes the kernel wait for a grace period of
		// RCU (some 10 ms) when the socket is closed. A box that has no rules
		// yet, as all of a new lab, is spared that.
		err := rs.commit(false)
		if errors.Is(err, unix.EEXIST) {
			err = rs.commit(true)
		}
		if err != nil {
			return err
		}
		for _, p := range rs.parameters {
			if err := ns.WriteSysctl(p.name, p.value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// commit sends the rules to the calling thread's namespace. Unless they
// replace others, it fails with EEXIST if there are any, and changes nothing.
func (rs *Ruleset) commit(replace bool) error {
	conn, err := nftables.New(nftables.WithSockOptions(buffers))
	if err != nil {
		return err
	}
	t := table()
	if replace {
		conn.AddTable(t) // what isn't there can't be deleted
		conn.DelTable(t)
	}
	conn.CreateTable(t)
	if err := rs.queue(conn, t); err != nil {
		return err
	}
	return conn.Flush()
}

// queue adds the messages that fill the table.
func (rs *Ruleset) queue(conn *nftables.Conn, t *nftables.Table) error {
	for _, name := range rs.counters {
		conn.AddObj(&nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	for _, s := range rs.sets {
		if err := s.queue(conn, t); err != nil {
			return err
		}
	}
	accept := nftables.ChainPolicyAccept
	for _, c := range rs.chains {
		added := conn.AddChain(&nftables.Chain{
			Name: c.name, Table: t, Type: c.kind, Hooknum: c.hook, Priority: &c.priority, Policy: &accept,
		})
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: t, Chain: added, Exprs: r.exprs()})
		}
	}
	return nil
}

// queue adds one set.
func (s set) queue(conn *nftables.Conn, t *nftables.Table) error {
	out := &nftables.Set{
		Table: t, Name: s.name, Dynamic: true, HasTimeout: true, Timeout: s.timeout,
		KeyType: s.key[0], IsMap: len(s.data) > 0,
	}
	var err error
	if len(s.key) > 1 {
		out.Concatenation = true
		if out.KeyType, err = nftables.ConcatSetType(s.key...); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	if len(s.data) > 0 {
		if out.DataType, err = nftables.ConcatSetType(s.data...); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	if err := conn.AddSet(out, nil); err != nil {
		return fmt.Errorf("set %s: %w", s.name, err)
	}
	return nil
}

// Counter is what a named counter has seen.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters returns what each rule that drops has dropped in a namespace since
// its rules were loaded, by the rule's name.
func Counters(h *ns.Handle) (map[string]Counter, error) {
	counters := map[string]Counter{}
	err := h.Do(func() error {
		conn, err := nftables.New(nftables.WithSockOptions(buffers))
		if err != nil {
			return err
		}
		objects, err := conn.GetNamedObjects(table())
		if err != nil {
			return err
		}
		for _, o := range objects {
			named, ok := o.(*nftables.NamedObj)
			if !ok {
				continue
			}
			if c, ok := named.Obj.(*expr.Counter); ok {
				counters[named.Name] = Counter{Packets: c.Packets, Bytes: c.Bytes}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return counters, nil
}

// FlushConntrack makes a namespace forget all its flows. The next packet of
// each is as the first.
func FlushConntrack(h *ns.Handle) error {
	err := h.Do(func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer handle.Close()
		return handle.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		return fmt.Errorf("flush connection tracking: %w", err)
	}
	return nil
}
