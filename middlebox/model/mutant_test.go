package model

import (
	"fmt"
	"runtime"
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
	r := newRig(t, true, 1)
	nat := middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, Ports: middlebox.PreservePorts}
	for name, c := range map[string]struct {
		mutate   func(*middlebox.Behaviour)
		shortest int // packets
	}{
		"filters less": {func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterEndpointIndependent }, 2},
		"filters more": {func(b *middlebox.Behaviour) { b.Filtering = middlebox.FilterAddressAndPortDependent }, 2},
		"maps by address": {func(b *middlebox.Behaviour) {
			b.Mapping = middlebox.MapAddressDependent
		}, 2},
		"takes no connection up": {func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour }, 1},
		"blocks":                 {func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := nat
			c.mutate(&wrong)
			var shown []step
			var difference error
			inner, done := &failing{T: t}, make(chan struct{})
			check := func() {
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
			go check()
			<-done
			if !inner.failed {
				t.Fatal("nothing was found")
			}
			t.Logf("%d packets, %v: %v", len(shown), fmt.Sprint(shown), difference)
			if len(shown) != c.shortest {
				t.Errorf("shown by %v, %d packets; want %d", shown, len(shown), c.shortest)
			}
		})
	}
}
