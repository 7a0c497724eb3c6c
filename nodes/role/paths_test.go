package role

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/call"
	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/network/memory"
)

// box makes a NAT of one of the kinds of papers.md §4, nil for none.
func box(kind string, external string) *memory.NAT {
	nat := &memory.NAT{External: netip.MustParseAddr(external)}
	switch kind {
	case "O":
		return nil
	case "F":
	case "R":
		nat.Filtering = memory.AddressDependent
	case "P":
		nat.Filtering = memory.AddressPortDependent
	case "S", "Sp":
		nat.Mapping, nat.Filtering = memory.AddressPortDependent, memory.AddressPortDependent
		nat.Sequential = kind == "Sp"
	default:
		panic(kind)
	}
	return nat
}

// between makes an overlay with alice and bob behind boxes of these kinds.
func between(t *testing.T, caller, callee string, latency time.Duration, settings string) *overlay {
	t.Helper()
	o := &overlay{t: t, net: memory.New(memory.Latency(latency)),
		boxes: map[string]*memory.NAT{"alice": box(caller, "198.18.9.1"), "bob": box(callee, "198.18.9.2")},
		set:   map[string]string{"alice": settings, "bob": settings}}
	o.build("nec2006", 12, "alice", "bob")
	return o
}

// callOf is a client's end of a call that it made, or that it was called with.
func (o *overlay) callOf(name string, r *control.CallResult) *call.Call {
	o.t.Helper()
	id, err := hex.DecodeString(r.Call)
	if err != nil {
		o.t.Fatal(err)
	}
	c, ok := o.client(name).held.get().call.Find(directory.Session(id))
	if !ok {
		o.t.Fatalf("%s is in no such call", name)
	}
	return c
}

// table is papers.md §4 without the column and the row of blocked UDP.
var table = map[string]map[string]string{
	"O":  {"O": "direct", "F": "direct", "R": "reversed", "P": "reversed", "S": "reversed", "Sp": "reversed"},
	"F":  {"O": "direct", "F": "direct", "R": "reversed", "P": "reversed", "S": "reversed", "Sp": "reversed"},
	"R":  {"O": "direct", "F": "direct", "R": "punched", "P": "punched", "S": "punched", "Sp": "punched"},
	"P":  {"O": "direct", "F": "direct", "R": "punched", "P": "punched", "S": "relayed", "Sp": "predict"},
	"S":  {"O": "direct", "F": "direct", "R": "punched", "P": "relayed", "S": "relayed", "Sp": "relayed"},
	"Sp": {"O": "direct", "F": "direct", "R": "punched", "P": "predict", "S": "relayed", "Sp": "predict"},
}

// TestPairs is the table of papers.md §4: as it is, with bindings that are
// forgotten before each call, and with prediction.
func TestPairs(t *testing.T) {
	for variant, c := range map[string]struct {
		settings string
		expire   bool
	}{"as it is": {}, "expired": {expire: true}, "predict": {settings: `{"predict": true}`}} {
		t.Run(variant, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &overlay{t: t, net: memory.New(memory.Latency(5 * time.Millisecond)),
					boxes: map[string]*memory.NAT{}, set: map[string]string{}}
				var names []string
				for kind := range table {
					for end, net := range map[string]string{"from-": "198.18.8.%d", "to-": "198.18.9.%d"} {
						name := end + kind
						o.boxes[name] = box(kind, fmt.Sprintf(net, len(names)+1))
						o.set[name] = c.settings
						names = append(names, name)
					}
				}
				o.build("nec2006", 14, names...)
				defer o.close()
				o.logins(names...)
				for caller, row := range table {
					for callee, want := range row {
						if want == "predict" && c.settings == "" {
							want = "relayed"
						} else if want == "predict" {
							want = "punched"
						}
						if c.expire {
							for _, nat := range o.boxes {
								if nat != nil {
									o.net.Flush(nat) // what is mapped anew gets another port
								}
							}
						}
						o.testPair("from-"+caller, "to-"+callee, want)
					}
				}
			})
		})
	}
}

// testPair makes a call and checks where its media goes, at both ends.
func (o *overlay) testPair(caller, callee, want string) {
	t := o.t
	r, err := o.dial(caller, callee)
	if err != nil {
		t.Errorf("%s calls %s: %v", caller, callee, err)
		return
	}
	time.Sleep(time.Second)
	for _, name := range []string{caller, callee} {
		if got := o.callOf(name, r).Media(); got.Path != want || got.Legs[0].Transport != "udp" {
			t.Errorf("%s calls %s, says %s: media %+v, want %s", caller, callee, name, got, want)
		}
	}
	var end control.HangupResult
	o.must(caller, control.MethodHangup, control.HangupParams{Call: r.Call}, &end)
	if end.Media.Path != want || end.Received < 69 {
		t.Errorf("%s calls %s: at the end %+v", caller, callee, end)
	}
	// In the field nobody calls from one node 36 times in a minute: let the
	// supernodes' limits on introductions recover.
	time.Sleep(5 * time.Second)
}

// TestFirstPacketIsQuick bounds the time from accept to the first media packet
// that is delivered to each end of a punched pair, with the supernodes as far
// as the peer: the answer takes one round trip over a relay, the check that it
// starts one more, and the packet half; and 20 ms for the pace of checks.
func TestFirstPacketIsQuick(t *testing.T) {
	for _, pair := range [][2]string{{"P", "P"}, {"R", "S"}, {"S", "R"}} {
		for _, roundTrip := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s x %s, %v", pair[0], pair[1], roundTrip), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := between(t, pair[0], pair[1], roundTrip/2, "")
					defer o.close()
					o.logins("alice", "bob")
					r, err := o.dial("alice", "bob")
					if err != nil {
						t.Fatal(err)
					}
					accepted := o.callOf("bob", r).Accepted()
					for _, name := range []string{"alice", "bob"} {
						c := o.callOf(name, r)
						if c.Media().Path != "punched" {
							t.Errorf("%s: media %+v", name, c.Media())
						}
						took := c.Stats().First.Sub(accepted)
						if bound := roundTrip*5/2 + 20*time.Millisecond; took > bound {
							t.Errorf("%s heard the first packet %v after the accept, want %v at most", name, took, bound)
						}
					}
					o.must("alice", control.MethodHangup, control.HangupParams{Call: r.Call}, nil)
				})
			})
		}
	}
}

// TestSearchAfterExpiry has all bindings forgotten before each search: both
// ends' addresses are asked for anew, and the greeting takes the path that it
// took before.
func TestSearchAfterExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &overlay{t: t, net: memory.New(memory.Latency(5 * time.Millisecond)), boxes: map[string]*memory.NAT{}}
		kinds := []string{"O", "F", "R", "P", "S"}
		var names []string
		for i, kind := range kinds {
			for n, end := range []string{"from-", "to-"} {
				o.boxes[end+kind] = box(kind, fmt.Sprintf("198.18.%d.1", 10*n+i+20))
				names = append(names, end+kind)
			}
		}
		o.build("nec2006", 14, names...)
		defer o.close()
		o.logins(names...)
		for _, caller := range kinds {
			for _, callee := range kinds {
				for _, nat := range o.boxes {
					if nat != nil {
						o.net.Flush(nat)
					}
				}
				got, err := o.search("from-"+caller, "to-"+callee)
				if err != nil {
					t.Errorf("%s searches for %s: %v", caller, callee, err)
				} else if want := table[caller][callee]; got.Path != want {
					t.Errorf("%s searches for %s: %+v, want %s", caller, callee, got, want)
				}
				time.Sleep(5 * time.Second) // the supernodes' limits, as in testPair
			}
		}
	})
}
