package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds a scenario file, in bytes.
const maxFile = 1 << 20

// Read reads and checks a scenario file. Its error is Mistakes.
func Read(file string) (*Scenario, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, Mistakes{{File: file, Message: fileError(err)}}
	}
	s, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	if s.Dir, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return nil, Mistakes{{File: file, Message: err.Error()}}
	}
	return s, nil
}

func fileError(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.Is(err, fs.ErrPermission):
		return "not readable: permission denied"
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return "not readable: " + path.Err.Error()
	}
	return err.Error()
}

// Parse reads and checks a scenario; file is its name in messages. The error
// is Mistakes, all of them, in the order of their places.
func Parse(file string, data []byte) (*Scenario, error) {
	d := &decoder{file: file}
	s := &Scenario{ID: strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), Source: data}
	root, err := document(data)
	if err != nil {
		return nil, Mistakes{yamlMistake(file, err)}
	}
	d.decode(root, reflect.ValueOf(s).Elem())
	unread := slices.Clone(d.mistakes)
	d.check(root, s)
	if len(d.mistakes) > 0 {
		d.mistakes = append(unread, d.mistakes[len(unread):].elsewhere(unread)...)
		return nil, d.mistakes.sorted()
	}
	if s.Profile == "" {
		s.Profile = DefaultProfile
	}
	s.lossy()
	return s, nil
}

func document(data []byte) (*yaml.Node, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("empty; expected a scenario with a topology")
	}
	if root := doc.Content[0]; root.Kind == yaml.MappingNode {
		return root, nil
	}
	return nil, errors.New("not a scenario: expected a mapping with a topology")
}

// yamlMistake gives a parser's error its place.
func yamlMistake(file string, err error) Mistake {
	m := Mistake{File: file, Message: err.Error()}
	var loaded *yaml.LoadError
	if errors.As(err, &loaded) {
		m.Line, m.Column = max(loaded.Mark.Line, 1), max(loaded.Mark.Column, 1)
		m.Message = "not YAML: " + loaded.Message
	}
	return m
}

// at returns the node at a path of keys below n: a key that is a range stands
// for each of its names. Where the path ends early, the last key found is
// returned, so that a mistake is shown as near as can be.
func at(n *yaml.Node, path ...string) *yaml.Node {
	place := n
	for i, name := range path {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			if name == "0" { // a single value stands for a list of one
				next = n
			}
			for k := 0; k+1 < len(n.Content); k += 2 {
				names, _ := expand(n.Content[k].Value)
				if n.Content[k].Value == name || slices.Contains(names, name) {
					place, next = n.Content[k], n.Content[k+1]
				}
			}
		case yaml.SequenceNode:
			var index int
			if _, err := fmt.Sscanf(name, "%d", &index); err == nil && index < len(n.Content) {
				place, next = n.Content[index], n.Content[index]
			}
		}
		if next == nil {
			return place
		}
		n = next
		if i == len(path)-1 && next.Kind == yaml.ScalarNode {
			return next
		}
	}
	return place
}
