package middlebox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// core are the expressions that nf_tables can't be without, whatever it loads.
var core = []string{"Bitwise", "Byteorder", "Cmp", "Immediate", "Meta", "Payload", "Range", "Verdict"}

// Nothing in the rules of any preset is left out of the features, and no
// feature's own rules lack it.
func TestFeaturesAreAll(t *testing.T) {
	features := Features()
	known := func(e expr.Any) bool {
		kind := strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.")
		return slices.Contains(core, kind) || slices.ContainsFunc(features, func(f Feature) bool { return f.used(e) })
	}
	behaviours := map[string]Behaviour{}
	for _, name := range Presets() {
		behaviours[name], _ = Preset(name)
	}
	for _, s := range beyond {
		b := Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent}
		s.set(&b)
		behaviours[s.name] = b
	}
	for name, b := range behaviours {
		rs, err := sampleRules(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, e := range rs.exprs() {
			if !known(e) {
				t.Errorf("%s: %T %+v is of no feature", name, e, e)
			}
		}
	}
	for _, f := range features {
		if !slices.ContainsFunc(f.tiny.exprs(), f.used) {
			t.Errorf("%s: its own rules don't use it", f.Name)
		}
		if presets, settings := f.NeededBy(); len(presets)+len(settings) == 0 {
			t.Errorf("%s: nothing needs it", f.Name)
		}
	}
}

func TestFeatureNeededBy(t *testing.T) {
	want := map[string]struct {
		preset, not, setting string
	}{
		"ct zone":          {"", "full-cone", "a mapping that depends on the destination and a looser filtering"},
		"masquerade":       {"confirming-router", "port-restricted", ""},
		"numgen":           {"symmetric", "stateful-firewall", ""},
		"jhash":            {"", "cgnat", "several addresses, unless pool: arbitrary"},
		"reject":           {"", "port-restricted", "unsolicited: reject"},
		"limit by address": {"", "cgnat", "udp_rate"},
		"dnat by a map":    {"full-cone", "port-restricted", "hairpin"},
		"log to a group":   {"port-restricted", "open", ""},
	}
	seen := 0
	for _, f := range Features() {
		w, ok := want[f.Name]
		if !ok {
			continue
		}
		seen++
		presets, settings := f.NeededBy()
		if w.preset != "" && !slices.Contains(presets, w.preset) || slices.Contains(presets, w.not) {
			t.Errorf("%s: needed by %q, want %s and not %s", f.Name, presets, w.preset, w.not)
		}
		if w.setting != "" && !slices.Contains(settings, w.setting) {
			t.Errorf("%s: needed by %q, want %s", f.Name, settings, w.setting)
		}
	}
	if seen != len(want) {
		t.Errorf("%d features of %d", seen, len(want))
	}
}

// The kernel takes each feature's own rules, and Try says so where it doesn't:
// masquerading is for chains that translate.
func TestFeaturesTry(t *testing.T) {
	h := space(t)
	for _, f := range Features() {
		if err := f.Try(h); err != nil {
			t.Error(err)
		}
	}
	wrong := Feature{Name: "masquerade in a filter", tiny: tiny(filtering, nil, masquerade())}
	if err := wrong.Try(h); !errors.Is(err, unix.EOPNOTSUPP) || !strings.HasPrefix(err.Error(), "masquerade in a filter: ") {
		t.Errorf("%v, want %v", err, unix.EOPNOTSUPP)
	}
}
