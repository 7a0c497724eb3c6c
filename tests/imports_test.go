package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// rules say what the packages under each folder may import of the project,
// test files left aside; the longest matching folder decides.
var rules = map[string][]string{
	"cmd/gauntlet":              {"lab/...", "compose", "compose/file", "topo", "middlebox", "nodes/control", "nodes/role", "tests"},
	"cmd/node":                  {"nodes/role"},
	"lab":                       {"lab/...", "topo", "topo/ns", "topo/packet", "middlebox", "middlebox/probe", "compose", "nodes/control"},
	"lab/evidence":              {},
	"lab/evidence/evidencetest": {"lab/evidence"}, // synthetic recordings for tests
	"lab/gateway":               {"lab/process", "middlebox", "topo/ns"},
	"lab/oracle":                {"lab/path", "middlebox", "middlebox/model"},
	"lab/media":                 {"lab/evidence"},
	"lab/path":                  {"lab/evidence", "lab/media"},
	"lab/verdict":               {"lab/evidence", "lab/media", "lab/path"},
	"lab/pairs":                 {"lab/oracle", "lab/path", "lab/report", "lab/scenario", "lab/theory", "lab/verdict", "middlebox"},
	"lab/report":                {"lab/media", "lab/oracle", "lab/path", "lab/verdict"},
	"lab/theory":                {"lab/oracle", "lab/path", "lab/report", "lab/scenario", "lab/verdict", "middlebox"},
	"compose":                   {"topo/ns"},
	"compose/composetest":       {}, // the engine for tests
	"compose/file":              {"compose", "topo"},
	"topo":                      {"topo/ns", "topo/pump"},
	"topo/ns":                   {},
	"topo/ns/nstest":            {"topo/ns"}, // namespaces for tests
	"topo/packet":               {"topo/ns"},
	"topo/pump":                 {"topo/ns", "topo/packet"},
	"middlebox/model":           {"middlebox"},
	"middlebox/probe":           {"middlebox", "topo/ns"},
	"middlebox":                 {"topo/ns"},
	"nodes":                     {"nodes/..."},
	"nodes/control":             {},
	"tests":                     {"lab/scenario"},
}

// nameless are package names that say nothing.
var nameless = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base"}

func TestImports(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "gauntlet/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		name := strings.TrimPrefix(p.ImportPath, "gauntlet/")
		if slices.Contains(nameless, path.Base(name)) {
			t.Errorf("%s: a package by no name of its own", name)
		}
		folder, allowed := rule(name)
		if folder == "" {
			t.Errorf("%s: no rule says what it may import", name)
		}
		for _, imported := range p.Imports {
			of, ours := strings.CutPrefix(imported, "gauntlet/")
			if ours && !slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, of) }) {
				t.Errorf("%s imports %s; packages under %s may import %v", name, of, folder, allowed)
			}
		}
	}
	if packages < len(rules) {
		t.Errorf("go list knows %d packages, fewer than there are rules", packages)
	}
}

func rule(name string) (folder string, allowed []string) {
	for f := name; f != "."; f = path.Dir(f) {
		if allowed, ok := rules[f]; ok {
			return f, allowed
		}
	}
	return "", nil
}

func matches(pattern, name string) bool {
	prefix, all := strings.CutSuffix(pattern, "/...")
	return name == prefix || all && strings.HasPrefix(name, prefix+"/")
}
