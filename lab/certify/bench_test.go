package certify

import (
	"fmt"
	"strings"
	"testing"

	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
)

// BenchmarkBoxes reports what certifying costs a box, all of it: measuring
// points, measurement, removal, reset. The limit is 150 ms.
func BenchmarkBoxes(b *testing.B) {
	for _, boxes := range []int{2, 20} {
		b.Run(fmt.Sprint(boxes), func(b *testing.B) {
			var topology strings.Builder
			topology.WriteString("topology:\n  hosts: {login: {}}\n  middleboxes:\n")
			for n := range boxes {
				fmt.Fprintf(&topology, "    box%d: {preset: %s}\n", n, middlebox.Presets()[1+n%5])
			}
			s, err := scenario.Parse("bench.yaml", []byte(topology.String()))
			if err != nil {
				b.Fatal(err)
			}
			i, err := internet.Up(b.Context(), s.Topology)
			if err != nil {
				b.Fatal(err)
			}
			defer i.Close()
			for b.Loop() {
				certificates, err := Boxes(b.Context(), i)
				if err != nil {
					b.Fatal(err)
				}
				for _, c := range certificates {
					if !c.Certified() {
						b.Fatalf("%s: %q", c.Box, c.Differences)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*boxes), "ms/box")
		})
	}
}

// BenchmarkChanges reports what certifying adds for each behaviour that a box is
// changed into, all of it: an internet, measuring points, measurement, removal.
func BenchmarkChanges(b *testing.B) {
	s, err := scenario.Parse("turning.yaml", []byte(turning))
	if err != nil {
		b.Fatal(err)
	}
	changes := 0
	for b.Loop() {
		certificates, err := Changes(b.Context(), s, nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range certificates {
			if !c.Certified() {
				b.Fatalf("step %d, %s: %q", c.Step, c.Box, c.Differences)
			}
		}
		changes += len(certificates)
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(changes), "ms/change")
}
