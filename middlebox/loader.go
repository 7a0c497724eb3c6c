package middlebox

import (
	"errors"
	"fmt"
	"slices"
	"sync"

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

// Loader loads one namespace's rules again and again. When a socket closes that
// has deleted rules, the kernel makes it wait for a grace period of RCU, some
// 10 to 25 ms; a Loader keeps its socket, and so waits in Close alone. Its
// methods may be called from several goroutines at once.
type Loader struct {
	h      *ns.Handle
	mu     sync.Mutex
	conn   *nftables.Conn
	flows  *netlink.Handle // of connection tracking; opened when it is needed
	filled bool            // the namespace has rules for sure
	broken error           // messages are left over that must not be sent

	ports     []PortMapping // what MapPorts was given
	mapsPorts bool          // the rules have sets for them
}

// NewLoader opens the socket. The handle must stay open as long as the loader.
func NewLoader(h *ns.Handle) (*Loader, error) {
	l := &Loader{h: h}
	err := h.Do(func() (err error) {
		l.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(buffers))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables socket: %w", err)
	}
	return l, nil
}

// Close gives the socket up. The rules stay.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows != nil {
		l.flows.Close()
	}
	if err := l.conn.CloseLasting(); err != nil {
		return fmt.Errorf("close nf_tables socket: %w", err)
	}
	return nil
}

// Load does what the function Load does.
func (l *Loader) Load(rs *Ruleset) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.broken
	if err == nil {
		err = l.commit(rs)
	}
	if err == nil {
		err = l.h.Do(func() error {
			for _, p := range rs.parameters {
				if err := ns.WriteSysctl(p.name, p.value); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// commit sends the rules in one batch. A namespace that has none yet, as all
// of a new lab, is spared a deletion.
func (l *Loader) commit(rs *Ruleset) error {
	t := table()
	if !l.filled {
		l.conn.CreateTable(t)
		err := l.send(rs, t)
		if !errors.Is(err, unix.EEXIST) {
			l.filled = err == nil
			return err
		}
	}
	l.conn.AddTable(t) // what isn't there can't be deleted
	l.conn.DelTable(t)
	l.conn.CreateTable(t)
	err := l.send(rs, t)
	l.filled = err == nil
	return err
}

// queueing is held while messages are queued: the library numbers the sets of
// all connections from one counter, without a lock of its own.
var queueing sync.Mutex

// send queues the messages that fill the table and sends all that is queued.
func (l *Loader) send(rs *Ruleset, t *nftables.Table) error {
	queueing.Lock()
	err := rs.queue(l.conn, t)
	l.mapsPorts = slices.ContainsFunc(rs.sets, func(s set) bool { return s.name == mappedSet(UDP) })
	if err == nil && l.mapsPorts {
		err = l.queuePorts(t, false)
	}
	queueing.Unlock()
	if err != nil {
		l.broken = err
		return err
	}
	return l.conn.Flush()
}

// Counter is what a named counter has seen.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters returns what each rule that drops has dropped in a namespace since
// its rules were loaded, by the rule's name.
func Counters(h *ns.Handle) (map[string]Counter, error) {
	l, err := NewLoader(h)
	if err != nil {
		return nil, err
	}
	counters, err := l.Counters()
	return counters, errors.Join(err, l.Close())
}

// Counters does what the function Counters does.
func (l *Loader) Counters() (map[string]Counter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	objects, err := l.conn.GetNamedObjects(table())
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	counters := map[string]Counter{}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		if c, ok := named.Obj.(*expr.Counter); ok {
			counters[named.Name] = Counter{Packets: c.Packets, Bytes: c.Bytes}
		}
	}
	return counters, nil
}

// FlushConntrack does what the function FlushConntrack does.
func (l *Loader) FlushConntrack() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	flows, err := l.tracking()
	if err != nil {
		return err
	}
	if err := flows.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("flush connection tracking: %w", err)
	}
	return nil
}

// tracking opens the socket of connection tracking when it is first needed.
func (l *Loader) tracking() (*netlink.Handle, error) {
	if l.flows == nil {
		if err := l.h.Do(func() (err error) {
			l.flows, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
			return err
		}); err != nil {
			return nil, fmt.Errorf("open connection tracking: %w", err)
		}
	}
	return l.flows, nil
}
