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
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	code := m.Run()
	if total.behaviours > 0 {
		fmt.Printf("model and kernel, %d behaviours: %v\n", total.behaviours, total.counts)
	}
	os.Exit(code)
}
