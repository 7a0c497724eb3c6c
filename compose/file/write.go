package file

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Keys of what services share, at the top of the file.
const (
	topologyKey = "x-topology"
	nodeKey     = "x-node"
	routerKey   = "x-router"
)

// Write returns the compose file. The same overlay always gives the same file.
// Check must have found nothing.
func (o Overlay) Write() ([]byte, error) {
	written, err := o.project().MarshalYAML()
	if err != nil {
		return nil, fmt.Errorf("write a compose file: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(written, &doc); err != nil {
		return nil, fmt.Errorf("write a compose file: %w", err)
	}
	root := doc.Content[0]
	services := value(root, "services")
	var nodes, routers []*yaml.Node
	topology := anchored(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: o.Text}, topologyKey)
	for i := 1; i < len(services.Content); i += 2 {
		s := services.Content[i]
		if on := value(s, "depends_on"); on != nil {
			listed(on)
		}
		if at := value(s, "environment"); at != nil && value(at, TopologyVariable) != nil {
			set(at, TopologyVariable, alias(topology))
			routers = append(routers, s)
		} else {
			nodes = append(nodes, s)
		}
	}
	var head []*yaml.Node
	if len(routers) > 0 {
		head = append(head, key(topologyKey), topology)
	}
	head = append(head, share(nodeKey, nodes)...)
	head = append(head, share(routerKey, routers)...)
	root.Content = append(head, root.Content...)
	escape(root)
	root.HeadComment = o.header()

	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write a compose file: %w", err)
	}
	return out.Bytes(), e.Close()
}

func (o Overlay) header() string {
	return "# Made by gauntlet compose " + o.Source + ": change that, and make this again.\n" +
		"#\n" +
		"#   docker-compose -p lab -f FILE up -d     (or docker compose)\n" +
		"#   gauntlet drive lab login CLIENT…\n" +
		"#   gauntlet drive lab call CALLER CALLEE\n" +
		"#   docker-compose -p lab -f FILE down\n" +
		"#\n" +
		"# The networks lead nowhere: the machine has no address on their bridges, and a\n" +
		"# container's default route is its router, DefaultGatewayIPv4."
}

// escape doubles every dollar sign of the values below a node: Compose would put a
// variable in its place.
func escape(n *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		n.Value = strings.ReplaceAll(n.Value, "$", "$$")
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			escape(n.Content[i])
		}
	case yaml.SequenceNode:
		for _, one := range n.Content {
			escape(one)
		}
	}
}

// share moves the fields that all of some mappings have alike into one, which
// they then refer to. It returns that one with its key, nothing if there is
// nothing to share.
func share(name string, mappings []*yaml.Node) []*yaml.Node {
	if len(mappings) < 2 {
		return nil
	}
	common := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	first := mappings[0]
	for i := 0; i < len(first.Content); i += 2 {
		k, v := first.Content[i], first.Content[i+1]
		alike := true
		for _, m := range mappings[1:] {
			alike = alike && same(v, value(m, k.Value))
		}
		if alike {
			common.Content = append(common.Content, k, v)
		}
	}
	if len(common.Content) == 0 {
		return nil
	}
	anchored(common, name)
	for _, m := range mappings {
		own := []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!merge", Value: "<<"}, alias(common)}
		for i := 0; i < len(m.Content); i += 2 {
			if value(common, m.Content[i].Value) == nil {
				own = append(own, m.Content[i], m.Content[i+1])
			}
		}
		m.Content = own
	}
	return []*yaml.Node{key(name), common}
}

// listed makes a mapping the list of its keys. That is all that docker-compose
// 1.29 takes of depends_on.
func listed(m *yaml.Node) {
	var names []*yaml.Node
	for i := 0; i < len(m.Content); i += 2 {
		names = append(names, m.Content[i])
	}
	*m = yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: names}
}

// same compares what two nodes say, wherever they stand.
func same(a, b *yaml.Node) bool {
	if a == nil || b == nil || a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !same(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return a.Alias == b.Alias
}

func key(name string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name} }

func anchored(n *yaml.Node, name string) *yaml.Node {
	n.Anchor = strings.TrimPrefix(name, "x-")
	return n
}

func alias(of *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.AliasNode, Value: of.Anchor, Alias: of}
}

// value returns what a mapping has under a key, nil if it hasn't.
func value(m *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i+1]
		}
	}
	return nil
}

func set(m *yaml.Node, name string, v *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			m.Content[i+1] = v
		}
	}
}
