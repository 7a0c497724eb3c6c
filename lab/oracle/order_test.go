package oracle

import (
	"testing"

	"pgregory.net/rapid"

	"gauntlet/lab/path"
	"gauntlet/middlebox"
)

// drawBox draws a behaviour out of all that Validate accepts of the words that
// decide paths.
func drawBox(t *rapid.T, name string) Box {
	pick := func(what string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name+" "+what) }
	b := middlebox.Behaviour{
		Mapping:   middlebox.Mapping(pick("mapping", "", "endpoint-independent", "address-dependent", "address-and-port-dependent")),
		Filtering: middlebox.Filtering(pick("filtering", "", "address-dependent", "address-and-port-dependent")),
	}
	if b.Translates() {
		b.Ports = middlebox.Ports(pick("ports", "", "preserve", "random", "sequential", "parity"))
		b.Unsolicited = middlebox.Unsolicited(pick("unsolicited", "", "reject", "confirm"))
		b.Hairpin = rapid.Bool().Draw(t, name+" hairpin")
	}
	if rapid.IntRange(0, 7).Draw(t, name+" udp") == 0 {
		b.Block = []middlebox.Protocol{middlebox.UDP}
	}
	if len(b.Validate()) > 0 {
		b.Unsolicited, b.Hairpin = "", false
	}
	return Box{Name: name, Behaviour: b}
}

func drawPair(t *rapid.T) Pair {
	p := Pair{Caller: End{Name: "alice"}, Callee: End{Name: "bob"}}
	if rapid.Bool().Draw(t, "a") {
		p.Caller.Boxes = append(p.Caller.Boxes, drawBox(t, "a"))
	}
	if rapid.Bool().Draw(t, "b") {
		p.Callee.Boxes = append(p.Callee.Boxes, drawBox(t, "b"))
	}
	switch rapid.IntRange(0, 4).Draw(t, "outer") {
	case 0:
		isp := drawBox(t, "isp")
		p.Caller.Boxes, p.Callee.Boxes = append(p.Caller.Boxes, isp), append(p.Callee.Boxes, isp)
	case 1:
		p.Callee.Boxes = append(p.Callee.Boxes, drawBox(t, "c"))
	}
	return p
}

// schedule plays turns and arrivals in any order, datagrams of one direction
// overtaking each other too, and then fairly until nothing new can come.
func schedule(t *rapid.T, c *talk) bool {
	var inFlight []flight
	land := func(i int) {
		f := inFlight[i]
		inFlight = append(inFlight[:i:i], inFlight[i+1:]...)
		if answer, ok := c.arrive(f); ok {
			inFlight = append(inFlight, answer)
		}
	}
	for range rapid.IntRange(0, 24).Draw(t, "steps") {
		choice := rapid.IntRange(-2, len(inFlight)-1).Draw(t, "what")
		if choice < 0 {
			inFlight = append(inFlight, c.turn(choice+2)...)
		} else {
			land(choice)
		}
	}
	for n := range 8 {
		for len(inFlight) > 0 {
			land(0)
		}
		inFlight = append(inFlight, c.turn(n%2)...)
	}
	for len(inFlight) > 0 {
		land(0)
	}
	return c.settled()
}

// TestOrders compares the theory with runs of the checks in random orders, with
// datagrams on their way at the same time: what happens is among what theory
// allows, and where theory is sure it happens always.
func TestOrders(t *testing.T) {
	pairs, orders, open := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := drawPair(t)
		o := Options{Expired: rapid.Bool().Draw(t, "expired")}
		theory, err := Expect(p, o)
		if err != nil {
			t.Fatal(err)
		}
		pairs++
		if len(theory.Media.Allowed) > 1 {
			open++
		}
		for range 8 {
			c, err := newTalk(p, terms{options: o, private: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			works := schedule(t, c)
			if c.err != nil {
				t.Fatal(c.err)
			}
			orders++
			if !agrees(theory.Media, works) {
				t.Fatalf("UDP between %+v works: %v; theory: %v\n%s", p, works, theory.Media, theory.Media.Reasoning)
			}
		}
	})
	t.Logf("%d pairs, %d orders, %d pairs whose path depends on more than the boxes", pairs, orders, open)
	if open == pairs {
		t.Errorf("theory is sure of none of %d pairs", pairs)
	}
}

// agrees says whether UDP that works, or doesn't, is what a theory allows.
func agrees(f Function, works bool) bool {
	for _, r := range f.Allowed {
		overUDP := r.Path != path.Relayed && r.Path != path.Failed && r.Transports[0] == udp
		if overUDP == works {
			return true
		}
	}
	return false
}

// A theory that is wrong is caught: that of a cone for a symmetric NAT.
func TestOrdersCanFail(t *testing.T) {
	cone := Pair{end(t, "alice", "a=port-restricted"), end(t, "bob", "b=port-restricted")}
	symmetric := Pair{end(t, "alice", "a=port-restricted"), end(t, "bob", "b=symmetric")}
	theory := expect(t, cone, Options{})
	c, err := newTalk(symmetric, terms{private: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.play([]int{caller, callee, caller, callee}, false)
	if agrees(theory.Media, c.settled()) {
		t.Error("a symmetric NAT passes for a cone")
	}
}
