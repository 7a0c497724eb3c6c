package scenario

import (
	"fmt"
	"slices"

	"gauntlet/middlebox"
	"gauntlet/topo"
)

// Behaviour is a preset, or none, with what is set over it.
func Behaviour(preset string, o Overrides) (middlebox.Behaviour, error) {
	var b middlebox.Behaviour
	if preset != "" {
		var ok bool
		if b, ok = middlebox.Preset(preset); !ok {
			return b, fmt.Errorf("unknown preset %q", preset)
		}
	}
	if o.Mapping != nil {
		b.Mapping = *o.Mapping
		if b.Mapping == "none" {
			b.Mapping = ""
		}
	}
	if o.Filtering != nil {
		b.Filtering = *o.Filtering
		if b.Filtering == "none" {
			b.Filtering = ""
		}
	}
	override(&b.TCPFiltering, o.TCPFiltering)
	override(&b.Ports, o.Ports)
	override(&b.Hairpin, o.Hairpin)
	override(&b.UDPTimeout, o.UDPTimeout)
	override(&b.UDPUnreplied, o.UDPUnreplied)
	override(&b.PortBlock, o.PortBlock)
	override(&b.TCPEstablished, o.TCPEstablished)
	override(&b.TCPTransitory, o.TCPTransitory)
	override(&b.TCPIdle, o.TCPIdle)
	override(&b.UDPRate, o.UDPRate)
	override(&b.Unsolicited, o.Unsolicited)
	override(&b.Refresh, o.Refresh)
	override(&b.Pool, o.Pool)
	override(&b.PortMapping, o.PortMapping)
	if o.Proxy != nil {
		b.Proxy = *o.Proxy
		if b.Proxy == "none" {
			b.Proxy = middlebox.NoProxy
		}
	}
	b.Block, b.Deny, b.Allow = slices.Clone(b.Block), slices.Clone(b.Deny), slices.Clone(b.Allow)
	for _, p := range o.Block {
		if !slices.Contains(b.Block, p) {
			b.Block = append(b.Block, p)
		}
	}
	for _, text := range o.Deny {
		d, err := middlebox.ParseDeny(text)
		if err != nil {
			return b, err
		}
		if !slices.Contains(b.Deny, d) {
			b.Deny = append(b.Deny, d)
		}
	}
	for _, text := range o.Allow {
		service, err := middlebox.ParseService(text)
		if err != nil {
			return b, err
		}
		if !slices.Contains(b.Allow, service) {
			b.Allow = append(b.Allow, service)
		}
	}
	return b, nil
}

func override[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// Behaviour is the middlebox's, as the file has it.
func (m Middlebox) Behaviour() (middlebox.Behaviour, error) { return Behaviour(m.Preset, m.Overrides) }

// Behaviour is what the box is changed to, as the file has it.
func (c BoxChange) Behaviour() (middlebox.Behaviour, error) { return Behaviour(c.Preset, c.Overrides) }

// BehaviourAfter is a box's after so many of the scenario's steps: the
// topology's, as the changes among those steps have made it.
func (s *Scenario) BehaviourAfter(box string, steps int) (middlebox.Behaviour, error) {
	declared, ok := s.Topology.Middleboxes.Get(box)
	if !ok {
		return middlebox.Behaviour{}, fmt.Errorf("unknown middlebox %q", box)
	}
	b, err := declared.Behaviour()
	for i := range s.Steps[:min(steps, len(s.Steps))] {
		for _, v := range s.Steps[i].Interventions() {
			if c := v.Change; err == nil && c != nil && c.Box == box {
				var next middlebox.Behaviour
				next, err = c.Behaviour()
				b = b.ChangedTo(next)
			}
		}
	}
	return b, err
}

// Label names the middlebox for people: its preset, or "custom".
func (m Middlebox) Label() string { return label(m.Preset) }

// Label names what the box is changed to.
func (c BoxChange) Label() string { return label(c.Preset) }

func label(preset string) string {
	if preset == "" {
		return "custom"
	}
	return preset
}

// Description is the topology without the behaviours of its boxes.
func (t Topology) Description() topo.Description {
	var d topo.Description
	for _, e := range t.Middleboxes {
		b, _ := e.Value.Behaviour()
		box := topo.BoxDescription{Name: e.Name, Behind: e.Value.Behind, Translates: b.Mapping != "", Link: e.Value.Link.link()}
		if e.Value.Addresses != nil {
			box.Addresses = *e.Value.Addresses
		}
		d.Boxes = append(d.Boxes, box)
	}
	for _, e := range t.Hosts {
		host := topo.HostDescription{Name: e.Name, Behind: e.Value.Behind, Link: e.Value.Link.link()}
		host.Link.Varies = e.Value.varies
		for _, ip := range e.Value.IP {
			host.IPs = append(host.IPs, ip.Addr)
		}
		d.Hosts = append(d.Hosts, host)
	}
	return d
}

func (l *Link) link() topo.Link {
	if l == nil {
		return topo.Link{}
	}
	out := topo.Link{Up: l.Shape.shape(), Down: l.Shape.shape()}
	if l.Up != nil {
		out.Up = l.Up.shape()
	}
	if l.Down != nil {
		out.Down = l.Down.shape()
	}
	return out
}

func (s Shape) shape() topo.Shape {
	return topo.Shape{Rate: uint64(s.Rate), Delay: s.Delay, Jitter: s.Jitter, Loss: float64(s.Loss)}
}
