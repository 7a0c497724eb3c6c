package model

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// step is one packet of a sequence, by numbers that shrink towards 0.
type step struct {
	kind   kind
	tcp    bool
	flags  int // which of segments
	near   int // an endpoint inside
	far    int // an endpoint outside
	target int // of an inward packet, or a hairpinned one: a flow seen so far
}

// kind is where a packet goes.
type kind int

const (
	out      kind = iota
	in            // from anybody outside to an external endpoint
	answer        // from whom the endpoint has sent to
	loop          // from inside to an external endpoint
	errorIn       // an ICMP error from outside about what was sent
	errorOut      // an ICMP error from inside about what has come
)

// segments are those that are sent, the first most often.
var segments = []Flags{SYN, ACK, SYN | ACK, FIN | ACK, RST, ACK | psh, SYN, ACK, SYN | ACK}

func (s step) String() string {
	what := "udp"
	if s.tcp {
		what = segments[s.flags].String()
	}
	switch s.kind {
	case in:
		return fmt.Sprintf("%s in %d to %d", what, s.far, s.target)
	case answer:
		return fmt.Sprintf("%s answer %d", what, s.target)
	case errorIn:
		return fmt.Sprintf("error in from %d about %d", s.far, s.target)
	case errorOut:
		return fmt.Sprintf("error out from %d about %d", s.near, s.far)
	case loop:
		return fmt.Sprintf("%s loop %d to %d", what, s.near, s.target)
	}
	return fmt.Sprintf("%s out %d to %d", what, s.near, s.far)
}

// steps draws a sequence.
func steps(r *rig, b middlebox.Behaviour) *rapid.Generator[[]step] {
	kinds := []kind{out, in, answer, out, answer}
	if b.Hairpin {
		kinds = append(kinds, loop)
	}
	one := rapid.Custom(func(t *rapid.T) step {
		s := step{
			kind: rapid.SampledFrom(kinds).Draw(t, "kind"), tcp: rapid.Bool().Draw(t, "tcp"),
			flags:  rapid.IntRange(0, len(segments)-1).Draw(t, "flags"),
			near:   rapid.IntRange(0, len(r.inside)-1).Draw(t, "near"),
			far:    rapid.IntRange(0, len(r.outside)-1).Draw(t, "far"),
			target: rapid.IntRange(0, 5).Draw(t, "target"),
		}
		if s.tcp { // fewer endpoints, so that connections get further
			s.near, s.far = s.near%2*len(insidePorts), s.far%2
		}
		return s
	})
	return rapid.SliceOfN(one, 1, 20)
}

// conversation draws a sequence of one or two connections alone, which so get
// through all their phases.
func conversation() *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			kind: rapid.SampledFrom([]kind{out, answer}).Draw(t, "kind"), tcp: true,
			flags: rapid.IntRange(0, len(segments)-1).Draw(t, "flags"),
			far:   rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1}).Draw(t, "far"),
		}
	})
	return rapid.SliceOfN(one, 8, 30)
}

// errHidden ends a sequence where the kernel has chosen a port that nobody sees.
var errHidden = errors.New("the port is hidden")

// sent is a packet that left, as the outside sees it.
type sent struct{ external, peer netip.AddrPort }

// compare runs a sequence through a kernel that has one behaviour and a model
// that has another, or the same, and returns the first difference. It fails
// the test only if it can't be told.
func compare(r *rig, kernel, declared middlebox.Behaviour, sequence []step) (difference error, failed error) {
	const tries = 5 // where packets get lost, which no sequence does every time
	for range tries {
		if difference, failed = once(r, kernel, declared, sequence); failed != nil {
			r.loaded = nil // its counters aren't known
		}
		if !errors.Is(failed, errLost) {
			break
		}
		r.count.retried++
	}
	return difference, failed
}

func once(r *rig, kernel, declared middlebox.Behaviour, sequence []step) (difference error, failed error) {
	c, err := begin(r, kernel, declared)
	if err != nil {
		return nil, err
	}
	for i, s := range sequence {
		if difference, failed := c.step(i, s, time.Duration(i)); difference != nil || failed != nil {
			return difference, failed
		}
		if c.hidden {
			return nil, nil
		}
	}
	return nil, nil
}

// comparison is a kernel and a model on their way.
type comparison struct {
	*rig
	declared middlebox.Behaviour
	box      *Box
	known    map[middlebox.Protocol][]sent
	hidden   bool // the kernel has chosen a port that nobody sees: it can't go on
}

// begin gives both their behaviour and no state.
func begin(r *rig, kernel, declared middlebox.Behaviour) (*comparison, error) {
	if err := r.behave(kernel); err != nil {
		return nil, err
	}
	box, err := New(r.config(declared))
	if err != nil {
		return nil, err
	}
	r.count.sequences++
	return &comparison{rig: r, declared: declared, box: box, known: map[middlebox.Protocol][]sent{}}, nil
}

// step sends one packet through both.
func (c *comparison) step(i int, s step, now time.Duration) (difference error, failed error) {
	if s.kind == errorIn || s.kind == errorOut {
		return c.complains(i, s)
	}
	p, from, side := packetOf(c.rig, c.declared, s, c.known)
	if m := c.box.mapped(p.Protocol, p.To); s.kind == loop && m != nil && m.key.inside.Addr() == p.From.Addr() {
		return nil, nil // a host has no need to reach itself, and the kernel loses it: see Fidelity
	}
	got, err := c.carry(from, p, uint16(i+1))
	lost := errors.Is(err, errLost)
	if err != nil && !lost {
		return nil, fmt.Errorf("packet %d, %v: %w", i, p, err)
	}
	c.count.packet(p, got)
	want, err := c.box.Handle(side, p, now, func(choice Choice) (netip.AddrPort, error) {
		switch {
		case got.dropped == middlebox.NoPortRule:
			if left, err := First(choice); err == nil {
				return netip.AddrPort{}, fmt.Errorf("%v is left", left)
			}
			return netip.AddrPort{}, ErrNoPort
		case !got.arrived:
			// Dropped after it got its port, which is the preserved one or in the
			// box's map.
			preserved := netip.AddrPortFrom(c.config(c.declared).WAN[0], choice.Inside.Port())
			if c.box.ports == middlebox.PreservePorts && choice.Allows(preserved) == nil {
				return preserved, nil
			}
			return c.given(p.Protocol, choice)
		}
		return got.from, nil
	})
	if lost && (err != nil || want.Dropped != Untracked) {
		return nil, fmt.Errorf("packet %d, %v: %w", i, p, errLost)
	}
	if lost {
		return nil, nil
	}
	if errors.Is(err, errHidden) {
		c.hidden = true
		return nil, nil
	}
	if err != nil {
		return fmt.Errorf("packet %d, %v: kernel %s; model: %w", i, p, describe(got), err), nil
	}
	if d := unlike(got, want); d != "" {
		return fmt.Errorf("packet %d, %v: kernel %s; model %v: %s", i, p, describe(got), want, d), nil
	}
	if got.arrived && s.kind == loop {
		c.count.turned++
	}
	if got.arrived && side == Inside {
		c.known[p.Protocol] = append(c.known[p.Protocol], sent{got.from, p.To})
	}
	return nil, nil
}

// carry sends a packet and says what became of it.
func (r *rig) carry(from socket, p Packet, sequence uint16) (seen, error) {
	if p.Protocol == middlebox.TCP {
		return r.sendSegment(p, sequence)
	}
	return r.send(from, p.To, sequence)
}

// packetOf makes the packet of a step.
func packetOf(r *rig, b middlebox.Behaviour, s step, all map[middlebox.Protocol][]sent) (Packet, socket, Side) {
	p := Packet{Protocol: middlebox.UDP}
	if s.tcp {
		p.Protocol, p.Flags = middlebox.TCP, segments[s.flags]
	}
	if s.kind == out {
		from := r.inside[s.near]
		p.From, p.To = from.local, r.outside[s.far].local
		return p, from, Inside
	}
	known := all[p.Protocol]
	var flow sent
	switch {
	case len(known) > 0:
		flow = known[max(0, len(known)-1-s.target)] // the latest, if 0
		p.To = flow.external
	case b.Translates():
		p.To = netip.AddrPortFrom(r.config(b).WAN[0], insidePorts[s.target%len(insidePorts)])
	default:
		p.To = r.inside[s.target%len(r.inside)].local
	}
	if s.kind == loop {
		p.From = r.inside[s.near].local
		return p, r.inside[s.near], Inside
	}
	from := r.outside[s.far]
	for _, o := range r.outside {
		if s.kind == answer && o.local == flow.peer {
			from = o
		}
	}
	p.From = from.local
	return p, from, Outside
}

func describe(s seen) string {
	if s.arrived {
		return fmt.Sprintf("brought it to %v from %v", s.at, s.from)
	}
	if s.local {
		return "delivered it to the box"
	}
	return "dropped it by " + s.dropped
}

// unlike compares what the kernel did with what the model says.
func unlike(got seen, want Fate) string {
	switch {
	case got.local != want.Local:
		return "one of them has the box take it"
	case got.local:
		return ""
	case got.arrived != (want.Dropped == ""):
		return "one of them lets it through"
	case !got.arrived && got.dropped != want.Dropped:
		return "another rule"
	case got.arrived && got.at != want.Packet.To:
		return "another receiver"
	case got.arrived && got.from != want.Packet.From:
		return "another source"
	}
	return ""
}

// grid is every mapping with every filtering and both ways to choose a port.
func grid() (list []middlebox.Behaviour) {
	for _, m := range []middlebox.Mapping{middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent} {
		for _, f := range []middlebox.Filtering{middlebox.FilterEndpointIndependent, middlebox.FilterAddressDependent, middlebox.FilterAddressAndPortDependent} {
			for _, p := range []middlebox.Ports{middlebox.PreservePorts, middlebox.RandomPorts} {
				list = append(list, middlebox.Behaviour{Mapping: m, Filtering: f, Ports: p})
			}
		}
	}
	return list
}

// name is what differs from the zero behaviour.
func name(b middlebox.Behaviour) string {
	short := map[string]string{"endpoint-independent": "EI", "address-dependent": "AD", "address-and-port-dependent": "APD", "": "no"}
	return fmt.Sprintf("%sM %sF %s", short[string(b.Mapping)], short[string(b.Filtering)], b.Ports)
}

// agree checks that kernel and model do the same to random sequences, which
// rapid shortens where they don't.
func agree(t *testing.T, r *rig, b middlebox.Behaviour, packets *rapid.Generator[[]step]) {
	t.Helper()
	pin(t)
	r.count = counts{}
	rapid.Check(t, func(rt *rapid.T) {
		sequence := packets.Draw(rt, "packets")
		difference, err := compare(r, b, b, sequence)
		if err != nil {
			rt.Fatal(err)
		}
		if difference != nil {
			r.count.differences++
			rt.Fatal(difference)
		}
	})
	t.Log(r.count)
	if why := r.count.tooManyRetried(); why != "" {
		t.Error(why)
	}
	total.add(r.count)
}

// The whole grid, with one external address.
func TestKernelGrid(t *testing.T) {
	r := newRig(t, true, 1)
	for _, b := range grid() {
		t.Run(name(b), func(t *testing.T) { agree(t, r, b, steps(r, b)) })
	}
}

// Connections, from their first SYN to what follows their end, by boxes of all
// mappings and none, that take them up in the middle or don't.
func TestKernelConnections(t *testing.T) {
	nat, wall := newRig(t, true, 1), newRig(t, false, 0)
	for _, idle := range []time.Duration{0, time.Hour} {
		for _, m := range []middlebox.Mapping{
			middlebox.NoMapping, middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent,
		} {
			b := middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent, TCPIdle: idle}
			on := nat
			if m == middlebox.NoMapping {
				on = wall
			}
			t.Run(fmt.Sprintf("%s idle %v", name(b), idle), func(t *testing.T) { agree(t, on, b, conversation()) })
		}
	}
}

// callers draws a sequence of connections from both sides, that meet: few
// endpoints, one of them inside, and of those outside two at one address.
func callers() *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			kind: rapid.SampledFrom([]kind{in, out, answer, in, out, answer}).Draw(t, "kind"), tcp: true,
			flags:  rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4, 5}).Draw(t, "flags"),
			far:    rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "far"),
			target: rapid.IntRange(0, 3).Draw(t, "target"),
		}
	})
	return rapid.SliceOfN(one, 6, 24)
}

// TCP is let in as its own filtering says (RFC 5382, REQ-3), whatever that of
// UDP is: by boxes of all mappings and none.
func TestKernelTCPFiltering(t *testing.T) {
	nat, wall := newRig(t, true, 1), newRig(t, false, 0)
	for _, b := range tcpGrid() {
		on := nat
		if !b.Translates() {
			on = wall
		}
		t.Run(fmt.Sprintf("%s TCP %s", name(b), b.TCPFiltering), func(t *testing.T) {
			t.Run("callers", func(t *testing.T) { agree(t, on, b, callers()) })
			t.Run("steps", func(t *testing.T) { agree(t, on, b, steps(on, b)) })
		})
	}
}

// tcpGrid is every mapping, and none, with every filtering of TCP and both ways
// to choose a port. UDP is filtered in another way.
func tcpGrid() (list []middlebox.Behaviour) {
	filterings := []middlebox.Filtering{middlebox.FilterEndpointIndependent, middlebox.FilterAddressDependent, middlebox.FilterAddressAndPortDependent}
	for _, m := range []middlebox.Mapping{
		middlebox.NoMapping, middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent,
	} {
		for i, f := range filterings {
			for _, p := range []middlebox.Ports{middlebox.PreservePorts, middlebox.RandomPorts} {
				b := middlebox.Behaviour{Mapping: m, Filtering: filterings[(i+1)%len(filterings)], TCPFiltering: f, Ports: p}
				if m == middlebox.NoMapping {
					if b.Ports = ""; p == middlebox.RandomPorts {
						continue
					}
				}
				list = append(list, b)
			}
		}
	}
	return list
}

// Each other property, once with every mapping that has it.
func TestKernelProperties(t *testing.T) {
	r, pool, wall := newRig(t, true, 1), newRig(t, true, 3), newRig(t, false, 0)
	for label, change := range map[string]func(*middlebox.Behaviour){
		"sequential": func(b *middlebox.Behaviour) { b.Ports = middlebox.SequentialPorts },
		"parity":     func(b *middlebox.Behaviour) { b.Ports = middlebox.ParityPorts },
		"block":      func(b *middlebox.Behaviour) { b.Ports, b.PortBlock = middlebox.BlockPorts, 64 },
		"exhausted":  func(b *middlebox.Behaviour) { b.Ports, b.PortBlock = middlebox.BlockPorts, 2 },
		"outbound":   func(b *middlebox.Behaviour) { b.Refresh = middlebox.RefreshOutbound },
		"outbound ADF": func(b *middlebox.Behaviour) {
			b.Refresh, b.Filtering = middlebox.RefreshOutbound, middlebox.FilterAddressDependent
		},
		"outbound EIF": func(b *middlebox.Behaviour) {
			b.Refresh, b.Filtering = middlebox.RefreshOutbound, middlebox.FilterEndpointIndependent
		},
		"reject": func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited },
		"deny": func(b *middlebox.Behaviour) {
			b.Deny = []middlebox.Deny{{Host: "s2", Protocol: middlebox.UDP, Port: 5001}}
		},
		"deny ADF": func(b *middlebox.Behaviour) {
			b.Deny, b.Filtering = []middlebox.Deny{{Host: "s2", Protocol: middlebox.UDP}}, middlebox.FilterAddressDependent
		},
		"allow":           func(b *middlebox.Behaviour) { b.Allow = []middlebox.Service{{Protocol: middlebox.UDP, Port: 5000}} },
		"block udp":       func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} },
		"hairpin":         func(b *middlebox.Behaviour) { b.Hairpin = true },
		"hairpin ADF":     func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterAddressDependent },
		"hairpin TCP ADF": func(b *middlebox.Behaviour) { b.Hairpin, b.TCPFiltering = true, middlebox.FilterAddressDependent },
		"hairpin TCP EIF": func(b *middlebox.Behaviour) { b.Hairpin, b.TCPFiltering = true, middlebox.FilterEndpointIndependent },
		"hairpin EIF":     func(b *middlebox.Behaviour) { b.Hairpin, b.Filtering = true, middlebox.FilterEndpointIndependent },
		"paired":          func(b *middlebox.Behaviour) { b.Pool = middlebox.PairedPool },
		"arbitrary":       func(b *middlebox.Behaviour) { b.Pool = middlebox.ArbitraryPool },
		"arbitrary EIF": func(b *middlebox.Behaviour) {
			b.Pool, b.Filtering = middlebox.ArbitraryPool, middlebox.FilterEndpointIndependent
		},
		"ADF": func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressDependent },
		"EIF": func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterEndpointIndependent },
	} {
		for _, m := range []middlebox.Mapping{
			middlebox.NoMapping, middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent,
		} {
			b := middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent}
			change(&b)
			if len(b.Validate()) > 0 {
				continue
			}
			on := r
			if b.Pool != "" {
				on = pool
			}
			if m == middlebox.NoMapping {
				on = wall
			}
			t.Run(label+" "+name(b), func(t *testing.T) { agree(t, on, b, steps(on, b)) })
		}
	}
}

// Any two behaviours of the grid are told apart, so that agreement means
// something.
func TestKernelDiffers(t *testing.T) {
	r := newRig(t, true, 1)
	pin(t)
	for _, kernel := range grid() {
		for _, declared := range grid() {
			if kernel.Mapping == declared.Mapping && kernel.Filtering == declared.Filtering {
				// Any port will do for ports: random, also the preserved one.
				continue
			}
			found := false
			for seed := 0; seed < 60 && !found; seed++ {
				difference, err := compare(r, kernel, declared, steps(r, kernel).Example(seed))
				if err != nil {
					t.Fatal(err)
				}
				found = difference != nil
			}
			if !found {
				t.Errorf("a kernel of %s passes for %s", name(kernel), name(declared))
			}
		}
	}
}
