package middlebox

import (
	"slices"
	"strings"
	"testing"
)

// Devices are presets, listed after those of no device, and say in words of a
// behaviour in what they are unlike their preset.
func TestDevices(t *testing.T) {
	all, names := Presets(), Devices()
	if !slices.Equal(all[len(all)-len(names):], names) {
		t.Errorf("presets %v don't end with the devices %v", all, names)
	}
	for _, name := range names {
		b, _ := Preset(name)
		if !b.Translates() || b.Ports == "" || b.UDPTimeout == 0 {
			t.Errorf("%s: %+v lacks what every device's source says", name, b)
		}
		for _, note := range Unlike(name) {
			if strings.HasSuffix(note, ".") || note == "" {
				t.Errorf("%s: %q is no note", name, note)
			}
		}
	}
	notes := Unlike("pf")
	if len(notes) == 0 {
		t.Fatal("pf is as its preset")
	}
	notes[0] = "changed"
	if Unlike("pf")[0] == "changed" {
		t.Error("a caller changed a note")
	}
	for _, name := range []string{"port-restricted", "no-such"} {
		if got := Unlike(name); got != nil {
			t.Errorf("%s: %q, want nothing", name, got)
		}
	}
}
