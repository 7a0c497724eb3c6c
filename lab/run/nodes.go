package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gauntlet/lab/conduct"
	"gauntlet/lab/process"
	"gauntlet/lab/scenario"
	"gauntlet/nodes/control"
)

// nodes are the running nodes of a scenario.
type nodes struct {
	run      *single
	backend  backend
	logs     string
	running  map[string]*process.Node
	prepared map[string]control.PrepareResult
	accounts []control.Account
}

func newNodes(r *single, dir string) *nodes {
	return &nodes{run: r, backend: newBackend(r.options), logs: filepath.Join(dir, "nodes"), running: map[string]*process.Node{}, prepared: map[string]control.PrepareResult{}}
}

// up starts every node, has all of them prepare, then puts all in service with
// what each made public.
func (n *nodes) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("not in service after %v", upTimeout))
	defer cancel()
	for _, e := range n.run.Nodes {
		node, err := n.backend.start(n, e.Name, e.Value)
		if err != nil {
			return err
		}
		n.running[e.Name] = node
		if n.client(e.Value) {
			n.accounts = append(n.accounts, control.Account{User: e.Name, Password: n.password()})
		}
	}
	var members []conduct.Member
	for _, e := range n.run.Nodes {
		h, _ := n.run.internet.Plan.Host(e.Name)
		members = append(members, conduct.Member{
			PrepareParams: control.PrepareParams{
				Name: e.Name, Role: e.Value.Role, Addresses: n.addresses(e.Name), Dir: n.backend.state(n, e.Name),
				Profile: n.run.Profile, Settings: json.RawMessage(e.Value.Settings),
			},
			Public: h.Behind == "",
		})
	}
	prepared, err := conduct.Up(ctx, members, n.accounts, n.call)
	n.prepared = prepared
	return err
}

func (n *nodes) client(node scenario.Node) bool { return node.Role == "client" || node.Foreign() }

func (n *nodes) password() string { return fmt.Sprintf("%016x", n.run.random.Uint64()) }

func (n *nodes) state(name string) string {
	return filepath.Join(n.run.options.Work, "nodes", n.run.name, name)
}

func (n *nodes) log(name string) string { return filepath.Join(n.logs, name+".log") }

func (n *nodes) addresses(name string) []string {
	h, _ := n.run.internet.Plan.Host(name)
	var all []string
	for _, a := range h.Addrs {
		all = append(all, a.String())
	}
	return all
}

func (n *nodes) config(name string, node scenario.Node) process.Config {
	c := process.Config{
		Name: name, Dir: n.state(name), Log: n.log(name),
		Namespace: n.run.internet.Namespace(name),
		Env:       []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.state(name), "TMPDIR=" + n.state(name), "LANG=C.UTF-8"},
	}
	c.Env = append(c.Env, n.run.internet.Environment(name)...)
	if len(node.Exec) > 0 {
		c.Argv = slices.Clone(node.Exec)
		c.WorkDir = n.run.Dir
		// A path is the scenario file's neighbour; a bare name is looked up.
		if strings.Contains(c.Argv[0], "/") && !filepath.IsAbs(c.Argv[0]) {
			c.Argv[0] = filepath.Join(n.run.Dir, c.Argv[0])
		}
	} else {
		c.Argv = append(slices.Clone(n.run.options.Node), node.Role)
	}
	if node.Role != "client" {
		c.Privileges.Keep = []int{unix.CAP_NET_BIND_SERVICE} // servers listen on 80 and 443
	}
	return c
}

// call drives one node and names it in the error, with the end of its log
// where it didn't fail in order.
func (n *nodes) call(ctx context.Context, name, method string, params, result any) error {
	err := n.running[name].Call(ctx, method, params, result)
	var failed *control.Failed
	if err == nil || errors.Is(err, control.ErrNotOffered) || errors.As(err, &failed) {
		return err
	}
	return fmt.Errorf("%s: %s: %w%s", name, method, err, n.tail(name))
}

// tail is the end of a node's stderr, to be put behind a reason.
func (n *nodes) tail(name string) string {
	lines := n.running[name].LastLines()
	if len(lines) == 0 {
		return "; it wrote nothing to stderr"
	}
	return "; its last lines on stderr:\n    " + strings.Join(lines, "\n    ")
}

func (n *nodes) offers(name, function string) bool {
	return slices.Contains(n.prepared[name].Functions, function)
}

// down stops all nodes at once.
func (n *nodes) down(ctx context.Context) {
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var group errgroup.Group
	for _, node := range n.running {
		group.Go(func() error { node.Stop(ctx); return nil })
	}
	group.Wait()
	n.backend.close()
	os.RemoveAll(filepath.Join(n.run.options.Work, "nodes", n.run.name))
}

// account is the one made up for a client.
func (n *nodes) account(user string) control.Account {
	for _, a := range n.accounts {
		if a.User == user {
			return a
		}
	}
	return control.Account{User: user}
}
