// Package tests holds the suites: scenario files as data, and the tests that
// run them.
package tests

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"gauntlet/lab/scenario"
)

//go:embed seed/*.yaml calls/*.yaml
var files embed.FS

// Suites are the names of all suites, the one that runs where none is named
// first: seed, the rows that the seed lecture states (reference/papers.md section
// 1), one file for each kind of box; and calls, what becomes of a call when its
// relay fails, and what its media is on the wire.
var Suites = []string{"seed", "calls"}

// Suite reads the scenarios of a suite.
func Suite(suite string) ([]*scenario.Scenario, error) {
	if !slices.Contains(Suites, suite) {
		return nil, fmt.Errorf("unknown suite %q; expected %s", suite, strings.Join(Suites, " or "))
	}
	names, err := fs.Glob(files, suite+"/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*scenario.Scenario
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s, err := scenario.Parse(path.Base(name), data)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
