// Package tests holds the suites: scenario files as data, and the tests that
// run them.
package tests

import (
	"embed"
	"io/fs"
	"path"

	"gauntlet/lab/scenario"
)

//go:embed seed/*.yaml
var files embed.FS

// Seed is the suite of the rows that the seed lecture states
// (reference/papers.md section 1), one file for each kind of box.
func Seed() ([]*scenario.Scenario, error) {
	names, err := fs.Glob(files, "seed/*.yaml")
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
