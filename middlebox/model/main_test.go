package model

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain bounds the property tests: so many sequences a behaviour, unless the
// command line says otherwise (-rapid.checks).
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"rapid.checks": "40", "rapid.shrinktime": "10s",
		"rapid.nofailfile": "true", // a failure names its seed
		// The same sequences in every run, so that a change that breaks nothing
		// fails nothing; -rapid.seed=N looks further.
		"rapid.seed": "1",
		// The tests of expiry mostly wait, whatever the number of processors.
		"test.parallel": "12",
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if total.behaviours > 0 {
		fmt.Printf("model and kernel, %d behaviours: %v\n", total.behaviours, total.counts)
	}
	os.Exit(code)
}
