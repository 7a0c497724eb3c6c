package middlebox

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// combinations returns every combination of a behaviour's words.
func combinations() (all []Behaviour) {
	for _, m := range []Mapping{NoMapping, MapEndpointIndependent, MapAddressDependent, MapAddressAndPortDependent} {
		for _, f := range []Filtering{FilterEndpointIndependent, FilterAddressDependent, FilterAddressAndPortDependent} {
			for _, ports := range []Ports{"", PreservePorts, RandomPorts, SequentialPorts, ParityPorts, BlockPorts} {
				for _, u := range []Unsolicited{"", DropUnsolicited, RejectUnsolicited, ConfirmUnsolicited} {
					for _, r := range []Refresh{"", RefreshOutbound, RefreshBoth} {
						for _, pool := range []Pool{"", PairedPool, ArbitraryPool} {
							for _, hairpin := range []bool{false, true} {
								b := Behaviour{
									Mapping: m, Filtering: f, Ports: ports, Unsolicited: u, Refresh: r, Pool: pool, Hairpin: hairpin,
								}
								all = append(all, b, with(b, func(b *Behaviour) { b.TCPFiltering = FilterEndpointIndependent }),
									with(b, func(b *Behaviour) { b.TCPFiltering = FilterAddressDependent }))
							}
						}
					}
				}
			}
		}
	}
	return all
}

// Every combination of words, with one external address and with two, is one
// that the kernel takes or one that is refused with what was expected instead.
// The kernel is given one in thirty-six; the seed is fixed.
func TestEveryCombination(t *testing.T) {
	t.Parallel()
	loader, err := NewLoader(space(t))
	if err != nil {
		t.Fatal(err)
	}
	defer loader.Close()
	chance := rand.New(rand.NewPCG(4787, 5382))
	valid, loaded := 0, 0
	for _, b := range combinations() {
		errs := b.Validate()
		for _, err := range errs {
			if !strings.Contains(err.Error(), "expected ") {
				t.Errorf("%+v: refused without saying what was expected: %v", b, err)
			}
		}
		box := exampleBox(b)
		for range 2 {
			rs, err := Rules(box)
			if (err == nil) != (len(errs) == 0) {
				t.Fatalf("%+v: rules: %v; validation: %v", b, err, errs)
			}
			if err == nil {
				valid++
				if chance.IntN(36) == 0 {
					loaded++
					if err := loader.Load(rs); err != nil {
						t.Errorf("%+v with %d addresses: %v", b, len(box.WANAddrs), err)
					}
				}
			}
			box.WANAddrs = append(box.WANAddrs, box.WANAddrs[0].Next())
		}
	}
	t.Logf("%d rule sets are valid, the kernel was given %d", valid, loaded)
	if loaded < 100 {
		t.Errorf("%d of %d rule sets were loaded, too few to say anything", loaded, valid)
	}
}
