package pairs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"gauntlet/lab/oracle"
	"gauntlet/lab/scenario"
	"gauntlet/lab/theory"
)

// Topology makes the table of a topology: every host behind a box calls every
// other. file is the file's content. Of every two hosts each calls the other,
// in two labs, so that the first call leaves nothing that the second would find.
func Topology(s *scenario.Scenario, file []byte, o Options) (*Table, error) {
	var hosts []string
	for _, e := range s.Topology.Hosts {
		if e.Value.Behind != "" {
			hosts = append(hosts, e.Name)
		}
	}
	if len(hosts) < 2 {
		return nil, fmt.Errorf("%s: %d hosts behind boxes; expected two at least, to call each other", s.ID, len(hosts))
	}
	text, err := overlay(file, s)
	if err != nil {
		return nil, err
	}
	t := &Table{Callers: hosts, Callees: hosts}
	for turn := range 2 {
		source := newSource(o)
		source.text.Write(text)
		source.clients = hosts
		source.nodes()
		id := labID(turn, 2)
		var calls []call
		for i, a := range hosts {
			for j, b := range hosts {
				if i == j || (i > j) != (turn == 1) {
					continue
				}
				boxes := chain(s, a)
				for _, name := range chain(s, b) {
					if !slices.Contains(boxes, name) {
						boxes = append(boxes, name)
					}
				}
				calls = append(calls, call{Cell: Cell{Caller: a, Callee: b, lab: id}, caller: a, callee: b, boxes: boxes})
			}
		}
		if err := t.steps(o, id, source, calls); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// ExplainHosts reasons out the functions between two hosts of a topology.
func ExplainHosts(s *scenario.Scenario) func(caller, callee string, o Options) (oracle.Theory, error) {
	return func(caller, callee string, o Options) (oracle.Theory, error) {
		for _, name := range []string{caller, callee} {
			if _, ok := s.Topology.Hosts.Get(name); !ok {
				return oracle.Theory{}, fmt.Errorf("unknown host %q; expected %s", name, strings.Join(s.Topology.Hosts.Names(), ", "))
			}
		}
		return theory.Hosts(s, caller, callee, oracle.Options{Expired: o.Expired, Predict: o.Predict})
	}
}

// chain are the boxes in front of a host.
func chain(s *scenario.Scenario, host string) []string {
	h, _ := s.Topology.Hosts.Get(host)
	var names []string
	for name := h.Behind; name != "" && !slices.Contains(names, name); {
		names = append(names, name)
		b, _ := s.Topology.Middleboxes.Get(name)
		name = b.Behind
	}
	return names
}

// overlay returns the topology of a file as the beginning of a scenario, with
// the hosts that the overlay needs added where the file has none of the name.
func overlay(file []byte, s *scenario.Scenario) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(file, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", s.ID, err)
	}
	topology := value(document.Content[0], "topology")
	hosts := value(topology, "hosts")
	needed := []string{"login", "update"}
	for n := range supernodes {
		needed = append(needed, fmt.Sprintf("sn%d", n+1))
	}
	for _, name := range needed {
		h, ok := s.Topology.Hosts.Get(name)
		if ok && h.Behind != "" {
			return nil, fmt.Errorf("%s: host %q is behind %s; expected it on the internet, since the overlay's node of that name runs there", s.ID, name, h.Behind)
		}
		if !ok {
			hosts.Content = append(hosts.Content,
				&yaml.Node{Kind: yaml.ScalarNode, Value: name},
				&yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle})
		}
	}
	whole := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "topology"}, topology,
	}}
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := e.Encode(whole); err != nil {
		return nil, fmt.Errorf("%s: %w", s.ID, err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.ID, err)
	}
	return text.Bytes(), nil
}

// value is that of a key in a mapping that has it: the file was checked.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return &yaml.Node{Kind: yaml.MappingNode}
}
