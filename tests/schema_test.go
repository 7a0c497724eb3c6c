package tests

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"gauntlet/lab/scenario"
)

var update = flag.Bool("update", false, "write the generated files anew")

const schemaFile = "scenario.schema.json"

// The schema for editors is the one that the types give today.
func TestSchemaIsCurrent(t *testing.T) {
	schema, err := fromSource(t)
	if err != nil {
		t.Fatal(err)
	}
	generated, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	generated = append(generated, '\n')
	if *update {
		if err := os.WriteFile(schemaFile, generated, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(generated, stored) {
		t.Errorf("%s is not what the types give; run make generate", schemaFile)
	}
}

// fromSource makes the schema with the comments of the types as descriptions.
func fromSource(t *testing.T) (any, error) {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	t.Chdir("..")
	defer t.Chdir(here)
	return scenario.Schema("./lab/scenario", "./lab/verdict")
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fromYAML(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every file of the suite fits the schema, and the schema refuses what the
// reader refuses.
func TestSchemaFits(t *testing.T) {
	schema := compiled(t)
	names, err := fs.Glob(files, "*/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(fromYAML(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{
		"topology: {hosts: {a: {behind: [x]}}}",
		"topology: {hots: {}}",
		"topology: {hosts: {a: {}}}\nsteps: [{search: {caller: a, callee: b}, expect: {path: straight}}]",
		"topology: {middleboxes: {b: {ports: odd}}, hosts: {a: {}}}",
		"topology: {hosts: {a: {link: {rate: fast}}}}",
	} {
		if err := schema.Validate(fromYAML(t, []byte(bad))); err == nil {
			t.Errorf("the schema accepts %s", bad)
		}
	}
}
