package pairs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"gauntlet/lab/oracle"
	"gauntlet/lab/scenario"
)

// Topology makes the table of a topology: every host behind a box calls every
// other. Of every two hosts each calls the other, in two labs, so that the first
// call leaves nothing that the second would find.
func Topology(s *scenario.Scenario, o Options) (*Table, error) {
	var hosts []string
	for _, e := range s.Topology.Hosts {
		if e.Value.Behind != "" {
			hosts = append(hosts, e.Name)
		}
	}
	if len(hosts) < 2 {
		return nil, fmt.Errorf("%s: %d hosts behind boxes; expected two at least, to call each other", s.ID, len(hosts))
	}
	text, err := overlay(s)
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
				calls = append(calls, newCall(s, id, a, b))
			}
		}
		if err := t.steps(o, id, source, calls); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// ExplainHosts reasons out the functions between two hosts of a topology, which
// need no box, with the overlay's nodes where Topology puts them.
func ExplainHosts(s *scenario.Scenario) func(caller, callee string, o Options) (oracle.Theory, error) {
	return func(caller, callee string, o Options) (oracle.Theory, error) {
		for _, name := range []string{caller, callee} {
			switch _, ok := s.Topology.Hosts.Get(name); {
			case !ok:
				return oracle.Theory{}, fmt.Errorf("unknown host %q; expected %s", name, strings.Join(s.Topology.Hosts.Names(), ", "))
			case slices.Contains(overlaid(), name):
				return oracle.Theory{}, fmt.Errorf("host %q is where a node of the overlay runs; expected one for a client", name)
			}
		}
		text, err := overlay(s)
		if err != nil {
			return oracle.Theory{}, err
		}
		source := newSource(o)
		source.text.Write(text)
		source.clients = []string{caller, callee}
		source.nodes()
		t := &Table{}
		if err := t.steps(o, ID, source, []call{newCall(s, ID, caller, callee)}); err != nil {
			return oracle.Theory{}, err
		}
		return t.Cells[0].Theory, nil
	}
}

// newCall is a call between two hosts of a topology.
func newCall(s *scenario.Scenario, lab, caller, callee string) call {
	boxes := chain(s, caller)
	for _, name := range chain(s, callee) {
		if !slices.Contains(boxes, name) {
			boxes = append(boxes, name)
		}
	}
	return call{Cell: Cell{Caller: caller, Callee: callee, lab: lab}, caller: caller, callee: callee, boxes: boxes}
}

// overlaid are the hosts of the overlay's nodes that are no clients.
func overlaid() []string {
	names := []string{"login", "update"}
	for n := range supernodes {
		names = append(names, fmt.Sprintf("sn%d", n+1))
	}
	return names
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

// overlay returns the topology of a scenario's file as the beginning of a scenario, with
// the hosts that the overlay needs added where the file has none of the name.
func overlay(s *scenario.Scenario) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(s.Source, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", s.ID, err)
	}
	topology := value(document.Content[0], "topology")
	hosts := value(topology, "hosts")
	for _, name := range overlaid() {
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
