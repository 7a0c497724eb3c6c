package middlebox

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// BenchmarkLoad loads rules into a fresh namespace, in place of others, and in
// place of others with a Loader.
func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{"port-restricted", "symmetric", "restricted-cone"} {
		behaviour, _ := Preset(name)
		rs, err := Rules(exampleBox(behaviour))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/new", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				h, err := ns.New()
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := Load(h, rs); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := h.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run(name+"/replace", func(b *testing.B) {
			h := space(b)
			for b.Loop() {
				if err := Load(h, rs); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/loader", func(b *testing.B) {
			l, err := NewLoader(space(b))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for b.Loop() {
				if err := l.Load(rs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// space makes a namespace that ends with the test.
func space(tb testing.TB) *ns.Handle {
	tb.Helper()
	h, err := ns.New()
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		tb.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	return h
}
