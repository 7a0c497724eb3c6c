package scenario

import (
	"slices"
	"strconv"
	"time"
)

// Intervention is what the lab does to a box or to a node.
type Intervention struct {
	// A box behaves differently from now on.
	Change *BoxChange `yaml:"change" json:"change,omitempty"`
	// A box is switched off and on: it forgets all mappings and flows.
	Reboot *BoxName `yaml:"reboot" json:"reboot,omitempty"`
	// All UDP mappings of a box run out; TCP connections stay.
	Expire *BoxName `yaml:"expire" json:"expire,omitempty"`
	// A box gets other external addresses, and forgets all mappings and flows.
	Readdress *BoxName `yaml:"readdress" json:"readdress,omitempty"`
	// A node ends at once, without a word (SIGKILL); its host stays.
	Kill *NodeName `yaml:"kill" json:"kill,omitempty"`
	// A node stands still (SIGSTOP): its host answers for it as far as the kernel
	// does, so that connections stay.
	Stall *NodeName `yaml:"stall" json:"stall,omitempty"`
	// A node that stands still goes on.
	Resume *NodeName `yaml:"resume" json:"resume,omitempty"`
	// The uplink of a node's host loses packets from now on, both ways.
	Lose *Loss `yaml:"lose" json:"lose,omitempty"`
}

// interventions are the keys by which an intervention says what it does.
var interventions = []string{"change", "reboot", "expire", "readdress", "kill", "stall", "resume", "lose"}

func (v *Intervention) kinds() []string {
	var kinds []string
	for i, set := range []bool{v.Change != nil, v.Reboot != nil, v.Expire != nil, v.Readdress != nil, v.Kill != nil, v.Stall != nil, v.Resume != nil, v.Lose != nil} {
		if set {
			kinds = append(kinds, interventions[i])
		}
	}
	return kinds
}

// Action is the key of what is done, "" if that is nothing.
func (v *Intervention) Action() string {
	if kinds := v.kinds(); len(kinds) > 0 {
		return kinds[0]
	}
	return ""
}

// Target is the box or the node that it is done to; Carrying stands for a node.
func (v *Intervention) Target() string {
	switch {
	case v.Change != nil:
		return v.Change.Box
	case v.Reboot != nil:
		return v.Reboot.Box
	case v.Expire != nil:
		return v.Expire.Box
	case v.Readdress != nil:
		return v.Readdress.Box
	}
	return v.node()
}

// node is the node that it is done to, "" if it is done to a box.
func (v *Intervention) node() string {
	switch {
	case v.Kill != nil:
		return v.Kill.Node
	case v.Stall != nil:
		return v.Stall.Node
	case v.Resume != nil:
		return v.Resume.Node
	case v.Lose != nil:
		return v.Lose.Node
	}
	return ""
}

// Carrying stands, during a call, for the relay that carries its media then, by
// what the lab itself sees; with resume, for the one that the event before meant.
const Carrying = "carrying"

// NodeName is which node something happens to.
type NodeName struct {
	// Its name; in the middle of a call also carrying, for the relay that carries
	// the call's media at that moment.
	Node string `yaml:"node" json:"node"`
}

// Loss is which share of its packets a node's host loses.
type Loss struct {
	// Its name, or in the middle of a call carrying.
	Node string `yaml:"node" json:"node"`
	// The share that is lost, each way: 50%; 0% ends it.
	Loss Share `yaml:"loss" json:"loss"`
}

// Event is something that the lab does in the middle of a call.
type Event struct {
	// How long after the first media packet came to the callee.
	At time.Duration `yaml:"at" json:"at,omitempty" jsonschema:"type=string"`

	Intervention `yaml:",inline"`
}

// DefaultCall is how long media flows in a call that doesn't say it.
const DefaultCall = 2 * time.Second

// Length is how long media flows.
func (c *Call) Length() time.Duration {
	if c.For > 0 {
		return c.For
	}
	return DefaultCall
}

// Interventions are what the lab does in a step: one where that is the step, or
// those during its call.
func (st *Step) Interventions() (all []*Intervention) {
	if st.Action() != "" {
		all = append(all, &st.Intervention)
	}
	if st.Call != nil {
		for i := range st.Call.During {
			all = append(all, &st.Call.During[i].Intervention)
		}
	}
	return all
}

// intervention checks what is done, outside a call where call is nil.
func (c *checker) intervention(path []string, v *Intervention, call *Call) {
	path = under(path, v.Action())
	switch {
	case v.node() != "" || v.Kill != nil || v.Stall != nil || v.Resume != nil || v.Lose != nil:
		c.target(path, v, call)
	case v.Change == nil:
		c.box(path, v.Target())
	default:
		c.box(path, v.Change.Box)
		if v.Change.Addresses != nil {
			c.at(under(path, "addresses"), "the number of external addresses can't change while the lab runs")
		}
		c.change(path, *v.Change)
	}
}

// target checks the node that something is done to.
func (c *checker) target(path []string, v *Intervention, call *Call) {
	name := v.node()
	path = under(path, "node")
	_, known := c.s.Nodes.Get(name)
	switch {
	case name == Carrying && call == nil:
		c.at(path, "no call goes on that a relay could carry; expected the name of a node, or the step among what happens during a call")
	case name == Carrying && known:
		c.at(path, "%q is both a node and the word for the relay that carries; expected another name for the node", name)
	case name == Carrying:
	case !known:
		c.at(path, "unknown node %q; expected %s", name, list(c.s.Nodes.Names()))
	case call != nil && name == call.Caller && (v.Kill != nil || v.Stall != nil):
		c.at(path, "%s is who calls, and has to hang up; expected another node", name)
	}
}

// during checks what happens in the middle of a call.
func (c *checker) during(path []string, call *Call) {
	for i := range call.During {
		e := &call.During[i]
		path := under(path, "during", strconv.Itoa(i))
		if kinds := e.kinds(); len(kinds) != 1 {
			c.at(path, "an event does one thing; expected exactly one of %s, found %d", list(interventions), len(kinds))
			continue
		}
		if e.At >= call.Length() {
			c.at(under(path, "at"), "%v is not before the call's end; expected less than %v", e.At, call.Length())
		}
		if i > 0 && e.At < call.During[i-1].At {
			c.at(under(path, "at"), "%v is before the event above; expected the order in which they happen", e.At)
		}
		if e.Resume != nil && e.Resume.Node == Carrying && (i == 0 || call.During[i-1].node() != Carrying) {
			c.at(under(path, "resume", "node"), "no event before says which relay that is; expected one that stalls it")
		}
		c.intervention(path, &e.Intervention, call)
	}
}

// lossy marks the hosts whose uplinks will lose packets in a step, so that they
// are made to.
func (s *Scenario) lossy() {
	mark := func(v *Intervention, ends ...string) {
		if v.Lose == nil {
			return
		}
		for i := range s.Topology.Hosts {
			e := &s.Topology.Hosts[i]
			_, node := s.Nodes.Get(e.Name)
			if e.Name == v.Lose.Node || v.Lose.Node == Carrying && node && !slices.Contains(ends, e.Name) {
				e.Value.varies = true
			}
		}
	}
	for i := range s.Steps {
		st := &s.Steps[i]
		var ends []string
		if st.Call != nil {
			ends = []string{st.Call.Caller, st.Call.Callee}
		}
		for _, v := range st.Interventions() {
			mark(v, ends...)
		}
	}
}
