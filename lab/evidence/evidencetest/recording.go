// Package evidencetest makes recorded folders for tests, without a kernel: a
// small model of hosts and boxes that packets are sent through, one after the
// other, and that writes down what each tap, table and log would have seen.
package evidencetest

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gauntlet/lab/evidence"
)

// Start is the time of a recording's first packet.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Step is the time between two packets that are sent, Transit what a packet
// takes from one tap to the next.
const (
	Step    = time.Millisecond
	Transit = 10 * time.Microsecond
)

// Recording is a world and what happened in it so far.
type Recording struct {
	t testing.TB
	// World may be changed until the first packet.
	World evidence.World
	// Now is the time of the next packet.
	Now time.Time
	// Losses are written as they are.
	Losses evidence.Losses
	// Symmetric boxes map each destination to a port of its own.
	Symmetric map[string]bool
	// Leaky boxes let in what their filtering would stop.
	Leaky map[string]bool
	// Hairpin boxes turn what is sent from inside to an own address back inside.
	Hairpin map[string]bool
	// Block stops a transport at a box, both ways.
	Block map[string]string
	// Blind taps see nothing.
	Blind map[string]bool

	entries   []*entry
	taps      []string
	packets   []tapped
	drops     []evidence.DroppedPacket
	exchanges []evidence.Exchange
	nextPort  uint16
}

// entry is a connection at a box: the tuple of a packet outward on both sides.
type entry struct {
	box, transport string
	inner, outer   evidence.Tuple
	inbound        bool // a packet inward made it
	hairpin        bool // outer is a packet's that goes back inside
	started        time.Time
	expired        bool
}

type tapped struct {
	tap   int
	at    time.Time
	frame []byte
}

// New begins a recording with a world.
func New(t testing.TB, world evidence.World) *Recording {
	return &Recording{
		t: t, World: world, Now: Start, nextPort: 20000,
		Symmetric: map[string]bool{}, Leaky: map[string]bool{}, Hairpin: map[string]bool{}, Block: map[string]string{}, Blind: map[string]bool{},
	}
}

// Host makes a host for a world.
func Host(name, address, behind string, roles ...string) evidence.Host {
	return evidence.Host{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)}, Behind: behind, Roles: roles}
}

// Box makes a box for a world.
func Box(name, behind, wan, lan string) evidence.Box {
	return evidence.Box{
		Name: name, Behind: behind, WAN: []netip.Addr{netip.MustParseAddr(wan)}, LAN: netip.MustParsePrefix(lan),
	}
}

// NAT is the behaviour of a box that translates, from the beginning.
func NAT(box string, filtering evidence.Filtering) evidence.Change {
	return evidence.Change{Box: box, Translates: true, Filtering: filtering}
}

// Firewall is the behaviour of a box that does not translate.
func Firewall(box string, filtering evidence.Filtering) evidence.Change {
	return evidence.Change{Box: box, Filtering: filtering}
}

// Exchange notes an exchange.
func (r *Recording) Exchange(ex evidence.Exchange) { r.exchanges = append(r.exchanges, ex) }

// Write writes the folder and returns its name.
func (r *Recording) Write() string {
	r.t.Helper()
	dir := r.t.TempDir()
	r.must(evidence.WriteWorld(dir, r.World))
	r.must(evidence.WriteLosses(dir, r.Losses))
	r.must(evidence.WriteExchanges(dir, r.exchanges))
	r.must(evidence.WriteDrops(dir, r.drops))
	var dumps []evidence.Dump
	for _, b := range r.World.Boxes {
		d := evidence.Dump{Time: r.Now, Router: b.Name}
		for _, e := range r.entries {
			if e.box == b.Name {
				d.Flows = append(d.Flows, e.record())
			}
		}
		dumps = append(dumps, d)
	}
	r.must(evidence.WriteDumps(dir, dumps))
	var capture bytes.Buffer
	w, err := evidence.NewCaptureWriter(&capture, r.taps)
	r.must(err)
	for _, p := range r.packets {
		r.must(w.Packet(p.tap, p.at, len(p.frame), p.frame))
	}
	r.must(w.Flush())
	r.must(os.WriteFile(filepath.Join(dir, evidence.CaptureFile), capture.Bytes(), 0o644))
	return dir
}

// Read writes the folder and reads it.
func (r *Recording) Read() *evidence.Evidence {
	r.t.Helper()
	ev, err := evidence.Read(r.Write())
	r.must(err)
	return ev
}

// record is the entry as connection tracking would show it.
func (e *entry) record() evidence.Entry {
	x := evidence.Entry{Transport: e.transport, Original: e.inner, Reply: e.outer.Reverse(), Started: e.started}
	if e.inbound {
		x.Original, x.Reply = e.outer.Reverse(), e.inner
	}
	return x
}

func (r *Recording) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// Forget empties a box's table, as if all its entries had expired. The entries
// stay in the recording.
func (r *Recording) Forget(box string) {
	for _, e := range r.entries {
		if e.box == box {
			e.expired = true
		}
	}
}
