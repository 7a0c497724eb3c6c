package run

import (
	"net/netip"
	"testing"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/topo"
)

// watched is a carrier of a call of alice's with bob, and a packet of the load at
// one of the two at a time.
func watched(t *testing.T) (c *carrier, see func(at time.Time, tap, from, to string)) {
	t.Helper()
	plan, err := topo.NewPlan(topo.Description{Hosts: []topo.HostDescription{
		{Name: "alice"}, {Name: "bob"}, {Name: "sn1"}, {Name: "sn2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c = newCarrier(plan, "alice", "bob")
	address := func(name string) netip.AddrPort {
		h, _ := plan.Host(name)
		return netip.AddrPortFrom(h.Addrs[0], 9)
	}
	return c, func(at time.Time, tap, from, to string) {
		c.see(tap+"/eth0", at, evidence.Packet{
			Transport: evidence.UDP, Payload: media.PacketSize, Tuple: evidence.Tuple{Src: address(from), Dst: address(to)},
		})
	}
}

// The relay that carries is the one that gets the caller's packets and that the
// callee gets them from, of late.
func TestCarrier(t *testing.T) {
	c, see := watched(t)
	start := time.Now()
	over := func(at time.Time, relay string) {
		see(at, "alice", "alice", relay)
		see(at, relay, "alice", relay) // seen elsewhere too
		see(at, "bob", relay, "bob")
	}
	now := start
	for range startsWith - 1 {
		over(now, "sn1")
		now = now.Add(10 * time.Millisecond)
	}
	select {
	case <-c.start:
		t.Fatal("media has begun with a few packets")
	default:
	}
	over(now, "sn1")
	<-c.start
	if !c.began().Equal(start) {
		t.Errorf("media began %v after its first packet", c.began().Sub(start))
	}
	if name, err := c.relay(now); name != "sn1" || err != nil {
		t.Errorf("%q, %v; want sn1", name, err)
	}
	for range 40 { // as long as anybody looks back
		now = now.Add(10 * time.Millisecond)
		over(now, "sn2")
	}
	if name, err := c.relay(now); name != "sn2" || err != nil {
		t.Errorf("after it moved: %q, %v; want sn2", name, err)
	}
	for range 10 {
		over(now, "sn1")
	}
	if name, err := c.relay(now); err == nil {
		t.Errorf("over two relays: %q", name)
	}
	if name, err := c.relay(now.Add(time.Second)); err == nil {
		t.Errorf("a second after the last packet: %q", name)
	}
}

// What the caller sends into a relay that passes nothing on doesn't count, nor what
// goes straight.
func TestNoCarrier(t *testing.T) {
	c, see := watched(t)
	now := time.Now()
	for range 20 {
		see(now, "alice", "alice", "sn1")
		see(now, "alice", "alice", "bob")
		see(now, "bob", "alice", "bob")
		see(now, "bob", "sn2", "bob")
	}
	if name, err := c.relay(now); err == nil {
		t.Errorf("%q carries", name)
	}
}
