package model

import (
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// failing is a test that may fail without failing the one around it.
type failing struct {
	*testing.T
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) Error(...any)          { f.failed = true }
func (f *failing) Fail()                 { f.failed = true }
func (f *failing) Failed() bool          { return f.failed }
func (f *failing) FailNow()              { f.failed = true; runtime.Goexit() }
func (f *failing) Fatalf(string, ...any) { f.FailNow() }
func (f *failing) Fatal(...any)          { f.FailNow() }
func (f *failing) Log(...any)            {}
func (f *failing) Logf(string, ...any)   {}

// A model that is wrong in one thing is found out, and the sequence that shows
// it is shrunk to the shortest there is.
func TestKernelMutants(t *testing.T) {
	defer flag.Set("rapid.seed", flag.Lookup("rapid.seed").Value.String())
	defer flag.Set("rapid.shrinktime", flag.Lookup("rapid.shrinktime").Value.String())
	r := newRig(t, true, 1)
	nat := middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, Ports: middlebox.PreservePorts}
	for name, c := range map[string]struct {
		mutate   func(*middlebox.Behaviour)
		shortest int // packets
		// The kernel's random ports decide whether a sequence shows it, so that
		// shrinking may end early, or not before its time is over.
		chance bool
	}{
		"filters less": {func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterEndpointIndependent }, 2, false},
		"filters more": {func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressAndPortDependent }, 2, false},
		"maps by address": {func(b *middlebox.Behaviour) {
			b.Mapping = middlebox.MapAddressDependent
		}, 2, true},
		"takes no connection up": {func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour }, 1, false},
		"blocks":                 {func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := nat
			c.mutate(&wrong)
			var shown []step
			var difference error
			inner := &failing{T: t}
			shrinking := 2 * time.Minute // it ends by itself, in seconds
			if c.chance {
				shrinking = time.Second
			}
			flag.Set("rapid.shrinktime", shrinking.String())
			check := func(done chan struct{}) {
				defer close(done)
				if _, err := stay(); err != nil {
					t.Error(err)
					return
				}
				rapid.Check(inner, func(rt *rapid.T) {
					sequence := steps(r, nat).Draw(rt, "packets")
					found, err := compare(r, nat, wrong, sequence)
					if err != nil {
						t.Error(err)
					}
					if found != nil {
						shown, difference = sequence, found
						rt.Fatal(found)
					}
				})
			}
			for round := 0; !inner.failed; round++ { // chance may miss it once
				if round == 20 {
					t.Fatal("nothing was found")
				}
				flag.Set("rapid.seed", strconv.Itoa(1+round))
				done := make(chan struct{})
				go check(done)
				<-done
			}
			t.Logf("%d packets, %v: %v", len(shown), fmt.Sprint(shown), difference)
			if len(shown) < c.shortest || len(shown) > c.shortest && !c.chance {
				t.Errorf("shown by %v, %d packets; want %d", shown, len(shown), c.shortest)
			}
		})
	}
}
