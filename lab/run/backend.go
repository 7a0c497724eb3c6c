package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"gauntlet/compose"
	"gauntlet/lab/internet"
	"gauntlet/lab/process"
	"gauntlet/lab/scenario"
	"gauntlet/topo/ns"
)

// backend is where the nodes of a scenario run.
type backend interface {
	// spaces makes ready what has to be there before the internet is, and
	// returns the namespaces of the hosts that have one already. They are the
	// caller's.
	spaces(ctx context.Context, n *nodes) (map[string]*ns.Handle, error)
	// start starts a node.
	start(n *nodes, name string, node scenario.Node) (*process.Node, error)
	// state is the folder that a node may write to, as the node sees it.
	state(n *nodes, name string) string
	// close takes down what no node came to own.
	close()
}

// processes runs every node as a process of the sandbox.
type processes struct{}

func (processes) spaces(context.Context, *nodes) (map[string]*ns.Handle, error) { return nil, nil }
func (processes) state(n *nodes, name string) string                            { return n.state(name) }
func (processes) close()                                                        {}

func (processes) start(n *nodes, name string, node scenario.Node) (*process.Node, error) {
	if node.Image != "" {
		return nil, fmt.Errorf("node %s is an image; expected --backend docker", name)
	}
	return process.StartNode(n.config(name, node))
}

// Containers says where nodes run with the container backend.
type Containers struct {
	Engine *compose.Engine
	// Image runs the reference overlay: its entry point is the gauntlet binary.
	Image string

	// launching is held by the scenario whose containers are being started. That
	// is work for the processor, while driving is mostly waiting: one scenario
	// starts while others are driven.
	launching sync.Mutex
}

// containers runs every node in a container of its own, but for executables of
// the machine's, which an image doesn't hold: they stay processes.
type containers struct {
	*Containers
	mu      sync.Mutex
	waiting map[string]*waiting // by node, until it is started
}

// waiting is a container that no node has been made of yet.
type waiting struct {
	container *compose.Container
	log       *process.Log
}

// startsAtOnce is how many containers the engine is asked for at a time.
const startsAtOnce = 4

func (c *containers) spaces(ctx context.Context, n *nodes) (given map[string]*ns.Handle, err error) {
	c.launching.Lock()
	defer c.launching.Unlock()
	given = map[string]*ns.Handle{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(startsAtOnce)
	for _, e := range n.run.Nodes {
		if len(e.Value.Exec) > 0 {
			continue
		}
		group.Go(func() error {
			space, err := c.launch(ctx, n, e.Name, e.Value)
			if errors.Is(err, compose.ErrEnded) {
				return nil // the node's host is made, and its death told of when it is driven
			}
			if err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			given[e.Name] = space
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		for _, space := range given {
			err = errors.Join(err, space.Close())
		}
		return nil, err
	}
	return given, nil
}

// launch starts a node's container, whose network is still empty.
func (c *containers) launch(ctx context.Context, n *nodes, name string, node scenario.Node) (*ns.Handle, error) {
	environment, err := internet.Environment(n.run.Topology, name)
	if err != nil {
		return nil, err
	}
	spec := compose.Spec{Name: n.run.name + "-" + name, Image: node.Image, Env: environment}
	if node.Image == "" {
		spec.Image, spec.Command = c.Image, []string{"node", node.Role}
	}
	if node.Role != "client" {
		spec.Capabilities = []string{"NET_BIND_SERVICE"} // servers listen on 80 and 443
	}
	log, err := process.NewLog(n.log(name))
	if err != nil {
		return nil, err
	}
	spec.Stderr = log
	container, err := c.Engine.Start(ctx, spec)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	c.mu.Lock()
	c.waiting[name] = &waiting{container: container, log: log}
	c.mu.Unlock()
	return container.Namespace()
}

func (c *containers) start(n *nodes, name string, node scenario.Node) (*process.Node, error) {
	if len(node.Exec) > 0 {
		return process.StartNode(n.config(name, node))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[name]
	delete(c.waiting, name)
	return process.Attach(name, w.container, w.log, nil), nil
}

func (c *containers) state(n *nodes, name string) string {
	if node, _ := n.run.Nodes.Get(name); len(node.Exec) > 0 {
		return n.state(name)
	}
	return compose.StateDir
}

func (c *containers) close() {
	var group errgroup.Group
	for _, w := range c.waiting {
		group.Go(func() error {
			w.container.Kill()
			return w.log.Close()
		})
	}
	group.Wait()
	clear(c.waiting)
}

// newBackend is the one that the options ask for.
func newBackend(o Options) backend {
	if o.Containers == nil {
		return processes{}
	}
	return &containers{Containers: o.Containers, waiting: map[string]*waiting{}}
}

// Images are the images that scenarios name, each once.
func Images(scenarios []*scenario.Scenario) (images []string) {
	for _, s := range scenarios {
		for _, e := range s.Nodes {
			if i := e.Value.Image; i != "" && !slices.Contains(images, i) {
				images = append(images, i)
			}
		}
	}
	return images
}

// makeLogs makes the folder of the nodes' logs.
func (n *nodes) makeLogs() error {
	if err := os.MkdirAll(n.logs, 0o755); err != nil {
		return fmt.Errorf("logs of the nodes: %w", err)
	}
	return nil
}
