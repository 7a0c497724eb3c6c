package model

import (
	"flag"
	"os"
	"testing"
)

// TestMain bounds the property tests: so many sequences a behaviour, unless the
// command line says otherwise (-rapid.checks).
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
